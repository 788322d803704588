"""Train a network."""

import sys
from collections.abc import Sequence
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from experiments.config.command_line import (
    command_line_mistake,
    leaving_no_trace,
    options_first,
    run_script,
    use_frozen_conf,
    without_garbage_collection,
)
from experiments.config.hydra_internals import MAIN_OPTIONS, let_errors_through, let_hydra_start
from experiments.config.installation import CONF
from experiments.config.overrides import as_meant, explain
from experiments.config.plain_values import overrides_of, plain
from experiments.config.requirements import missing_extra
from experiments.config.resolvers import register_resolvers
from experiments.errors import Stopped, UserError, stop, together

register_resolvers()


@hydra.main(config_path=str(CONF), config_name="train", **MAIN_OPTIONS)
def main(config: DictConfig, callbacks: Sequence[Any] = ()) -> None:
    # torch and lightning take seconds: never before the config is composed
    with without_garbage_collection():
        from experiments.training.run import train

    job = HydraConfig.get()
    try:
        train(plain(config), overrides_of(job), callbacks, job.mode != RunMode.MULTIRUN)
    except Stopped as stopped:
        sys.exit(stopped.exit_code)
    except UserError as error:
        if job.mode == RunMode.MULTIRUN:  # the other jobs go on
            raise
        stop(error)


def start() -> None:
    let_hydra_start()
    let_errors_through()
    use_frozen_conf(sys.argv[1:])
    if mistake := command_line_mistake(sys.argv[1:]) or missing_extra(sys.argv[1:]):
        raise UserError(mistake)
    typed = sys.argv[1:]
    sys.argv[1:] = options_first(as_meant(typed))
    try:
        with leaving_no_trace(sys.argv):
            main()
    except (HydraException, OmegaConfBaseException, YAMLError) as error:
        raise UserError(together(explain(error, typed))) from error
    except KeyboardInterrupt:
        sys.exit("interrupted before there was anything to save")


if __name__ == "__main__":
    run_script(start)
