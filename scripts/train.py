"""Train a network: python scripts/train.py [group=choice] [key=value]."""

import os
import sys
import traceback

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig

from experiments.commands import Failed, refused, rehearsed, without_remarks
from experiments.composition import hint, plain, register_resolvers
from experiments.errors import Stopped, UserError, stop, tell

register_resolvers()
sys.path.append(os.getcwd())  # model.net._target_=my_module.MyNet finds my_module.py in the current folder


@hydra.main(version_base="1.3", config_path="../conf", config_name="train")
def main(config: DictConfig) -> None:
    from experiments.run import train  # torch and lightning take seconds: never before the config is composed

    job = HydraConfig.get()
    try:
        train(plain(config), list(job.overrides.task))
    except Stopped as stopped:
        sys.exit(stopped.exit_code)
    except UserError as error:
        if job.mode == RunMode.RUN:
            stop(error)
        tell(error, f" in job {job.job.num} ({job.job.override_dirname})")
        raise Failed(job.job.num, 2) from error
    except Exception as error:
        if job.mode == RunMode.RUN:
            raise
        traceback.print_exc()
        raise Failed(job.job.num, 1) from error


if __name__ == "__main__":
    if mistake := refused(sys.argv[1:]):
        stop(UserError(mistake))
    try:
        with rehearsed(sys.argv), without_remarks(sys.argv):
            main()
    except Failed as failed:  # with HYDRA_FULL_ERROR=1, which shows the way to the first
        traceback.print_exc()
        sys.exit(failed.exit_code)
    except SystemExit as ending:
        cause = ending.__context__
        if isinstance(cause, HydraException) and ending.code == 1 and not isinstance(cause, Failed):
            print(hint(cause, sys.argv[1:]).strip(), file=sys.stderr)  # Hydra has said what is wrong
        sys.exit(cause.exit_code if isinstance(cause, Failed) else ending.code)
    except KeyboardInterrupt:
        sys.exit("interrupted before there was anything to save")
