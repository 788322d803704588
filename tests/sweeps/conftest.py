import json
import logging
import os
from pathlib import Path

import pytest
from hydra import version
from hydra._internal.hydra import Hydra
from hydra._internal.utils import create_config_search_path
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig

from experiments.config.hydra_internals import VERSION_BASE
from experiments.config.installation import CONF
from experiments.config.plain_values import plain
from experiments.config.resolvers import register_resolvers

SHORT = (
    "trainer.max_epochs=4", "trainer.limit_train_batches=4", "trainer.accelerator=cpu", "logger=none",
    "callbacks=minimal", "callbacks.rolling_checkpoint=null", "callbacks.progress=null",
    "trainer.enable_progress_bar=false",
)  # fmt: skip
SMALL = ("model.net.hidden_features=[16]", *SHORT)
LR = "optimizer.lr=tag(log,interval(1e-4,1e-1))"


def task(config, callbacks=()):
    """What scripts/train.py does with a config."""
    from experiments.training.run import train  # with torch, which the process that hands out tests does without

    train(plain(config), list(HydraConfig.get().overrides.task), callbacks, may_start_processes=False)


@pytest.fixture
def multirun(tmp_path, monkeypatch):
    """``scripts/train.py -m *overrides`` in this process, with ``folder`` (in an empty one) as hydra.sweep.dir."""

    def run(folder: str, *overrides: str) -> Path:
        register_resolvers()
        if VERSION_BASE:
            version.setbase(VERSION_BASE["version_base"])
        monkeypatch.chdir(tmp_path)
        root = logging.getLogger()
        before = root.level, root.handlers[:]
        path = create_config_search_path(str(CONF))
        try:
            hydra = Hydra.create_main_hydra2("train", path)
            where = f"hydra.sweep.dir={tmp_path / folder}"
            hydra.multirun("train", task, [where, *overrides], with_log_configuration=False)
        finally:
            GlobalHydra.instance().clear()
            root.setLevel(before[0])
            root.handlers[:] = before[1]
        return tmp_path / folder

    monkeypatch.setenv("TQDM_DISABLE", "1")
    return run


def statuses(folder: Path) -> list[str]:
    """What the summaries of a sweep's runs say."""
    return sorted(json.loads(path.read_text())["status"] for path in folder.glob("*/summary.json"))


def numbers(folder: Path) -> list[int]:
    """The directories of a sweep's runs."""
    return sorted(int(name) for name in os.listdir(folder) if name.isdecimal())
