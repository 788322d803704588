"""Train a network: python scripts/train.py [group=choice] [key=value]."""

import os
import sys

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig

from experiments.commands import refused, rehearsed
from experiments.composition import hint, plain, register_resolvers
from experiments.errors import Stopped, UserError, stop
from experiments.imports import unwatched
from experiments.sweeps.needs import missing_extra

register_resolvers()
sys.path.append(os.getcwd())  # model.net._target_=my_module.MyNet finds my_module.py in the current folder


@hydra.main(version_base="1.3", config_path="../conf", config_name="train")
def main(config: DictConfig) -> None:
    with unwatched():
        from experiments.run import train  # torch and lightning take seconds: never before the config is composed

    job = HydraConfig.get()
    try:
        train(plain(config), list(job.overrides.task))
    except Stopped as stopped:
        sys.exit(stopped.exit_code)
    except UserError as error:
        if job.mode == RunMode.MULTIRUN:  # the other jobs go on
            raise
        stop(error)


if __name__ == "__main__":
    if mistake := refused(sys.argv[1:]) or missing_extra(sys.argv[1:]):
        stop(UserError(mistake))
    try:
        with rehearsed(sys.argv):
            main()
    except SystemExit as ending:
        cause = ending.__context__
        if isinstance(cause, HydraException) and ending.code == 1:
            print(hint(cause, sys.argv[1:]).strip(), file=sys.stderr)  # Hydra has said what is wrong
        raise
    except KeyboardInterrupt:
        sys.exit("interrupted before there was anything to save")
