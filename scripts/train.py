"""Train a network."""

import sys

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig

from experiments.commands import refused, rehearsed, run_script
from experiments.composition import hint, plain, register_resolvers
from experiments.config.installation import CONF
from experiments.errors import Stopped, UserError, stop
from experiments.hydra_internals import let_hydra_start
from experiments.imports import unwatched
from experiments.sweeps.needs import missing_extra

register_resolvers()


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="train")
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


def start() -> None:
    let_hydra_start()
    if mistake := refused(sys.argv[1:]) or missing_extra(sys.argv[1:]):
        raise UserError(mistake)
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


if __name__ == "__main__":
    run_script(start)
