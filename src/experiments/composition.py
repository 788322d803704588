"""Everything about Hydra that must not wait for torch: the run's id, and composing without a command line."""

import os
import secrets
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf, open_dict, read_write

from experiments.errors import UserError

CONF = Path(__file__).resolve().parents[2] / "conf"
RUN_ID = "EXPERIMENTS_RUN_ID"


def run_id() -> str:
    """An id that no other run has, and that all ranks of this run share: children inherit it."""
    fresh = f"{datetime.now():%Y%m%d-%H%M%S}-{secrets.token_hex(4)}"
    return os.environ.setdefault(RUN_ID, fresh)


def register_resolvers() -> None:
    """Make ``${run_id:}`` known to configs."""
    OmegaConf.register_new_resolver("run_id", run_id, use_cache=True, replace=True)


def compose(*overrides: str, config_name: str = "train") -> dict[str, Any]:
    """Compose a config as ``scripts/train.py`` would, in a notebook or a test: plain values, resolved.

    ``compose("model=cnn", "optimizer.lr=0.01")`` returns what ``experiments.build`` takes.

    Raises:
        hydra.errors.HydraException: if an override names an unknown group, choice or key; the message lists them.
        UserError: if it leaves open what must be given.
    """
    from hydra import compose as hydra_compose
    from hydra import initialize_config_dir
    from hydra.core.hydra_config import HydraConfig

    register_resolvers()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = hydra_compose(config_name, list(overrides), return_hydra_config=True)
    job, before = HydraConfig.instance(), HydraConfig.instance().cfg
    try:
        job.set_config(config)  # what ${hydra:...} reads
        with read_write(config.hydra), open_dict(config):
            config.hydra.runtime.output_dir = str(Path(config.hydra.run.dir).absolute())
            job.set_config(config)
            del config["hydra"]
        return plain(config)
    finally:
        job.cfg = before


def plain(config: Any) -> dict[str, Any]:
    """A composed config as plain, resolved values.

    Raises:
        UserError: if it leaves open what must be given.
    """
    if missing := sorted(OmegaConf.missing_keys(config)):
        raise UserError(f"{' and '.join(missing)} must be given, as {missing[0]}=...")
    values = OmegaConf.to_container(config, resolve=True)
    assert isinstance(values, dict)
    return {str(key): value for key, value in values.items()}


def did_you_mean(wrong: str, known: Sequence[str]) -> str:
    """``wrong``'s nearest neighbours as a question, or nothing."""
    from difflib import get_close_matches

    near = get_close_matches(wrong, known, n=3)
    return f" Did you mean {' or '.join(near)}?" if near else ""
