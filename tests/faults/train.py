"""Train as scripts/train.py does, composing once and not three times: for many runs that are killed and resumed."""

import logging
import sys

import experiments
from experiments.errors import Stopped, UserError, stop
from experiments.training.run import train

logging.basicConfig(level=logging.INFO, stream=sys.stdout, format="%(message)s", force=True)
typed = sys.argv[1:]
try:
    train(experiments.compose(*typed), [override for override in typed if not override.startswith("hydra.")])
except Stopped as stopped:
    sys.exit(stopped.exit_code)
except UserError as error:
    stop(error)
