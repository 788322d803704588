"""Train a network: python scripts/train.py [group=choice] [key=value]."""

import os
import sys

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from experiments.composition import Mistake, missing_run, plain, register_resolvers
from experiments.errors import Stopped, UserError, stop
from experiments.sweeps.needs import missing_extra

register_resolvers()
sys.path.append(os.getcwd())  # model.net._target_=my_module.MyNet finds my_module.py in the current folder


@hydra.main(version_base="1.3", config_path="../conf", config_name="train")
def main(config: DictConfig) -> None:
    from experiments.run import train  # torch and lightning take seconds: never before the config is composed

    try:
        train(plain(config), list(HydraConfig.get().overrides.task))
    except UserError as error:
        raise Mistake(f"error: {error}") from error
    except Stopped as stopped:
        sys.exit(stopped.exit_code)


if __name__ == "__main__":
    if mistake := missing_run(sys.argv[1:]) or missing_extra(sys.argv[1:]):
        stop(UserError(mistake))
    try:
        main()
    except SystemExit as ending:
        # Hydra ends with 1 whatever went wrong; its own composition errors keep that
        sys.exit(2 if isinstance(ending.__context__, Mistake) else ending.code)
    except KeyboardInterrupt:
        sys.exit("interrupted before there was anything to save")
