"""Configs composed in a third of the time: what Hydra makes of the same files again is taken from memory.

A run of all tests composes some two thousand configs, of forty files each. What is kept is known by its file's path,
time and size, so that a test that writes a file gets what it wrote.
"""

import copy
import pickle
from pathlib import Path

from hydra._internal import defaults_list
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.config_repository import CachingConfigRepository
from hydra._internal.sources_registry import SourcesRegistry
from hydra.core.plugins import Plugins

Plugins.instance()  # which registers the sources
FILES, PACKAGES = (SourcesRegistry.instance().resolve(scheme) for scheme in ("file", "pkg"))
LOAD, LOAD_FROM_PACKAGE = FILES.load_config, PACKAGES.load_config
MERGE = ConfigLoaderImpl._compose_config_from_defaults_list
MAP = defaults_list._create_interpolation_map
KEPT: dict[tuple, bytes] = {}


def compose_quickly() -> None:
    """From here on, let Hydra keep the files that it has parsed, and what it has merged them to."""
    FILES.load_config, PACKAGES.load_config = load, load_from_package
    ConfigLoaderImpl._compose_config_from_defaults_list = merged
    CachingConfigRepository.__init__ = share_sources
    defaults_list._create_interpolation_map = interpolation_map


def kept(key: tuple, make):
    """A copy of what was made for this key before, or else now."""
    if key not in KEPT:
        made = make()
        try:
            KEPT[key] = pickle.dumps(made)
        except pickle.PicklingError:  # of a plugin's class, whose module Hydra has run twice
            return made
    return pickle.loads(KEPT[key])


def load(source, config_path: str):
    path = Path(source.path, source._normalize_file_name(config_path))
    file = path.stat()
    key = (str(path), source.provider, file.st_mtime_ns, file.st_size, file.st_ino)
    result = kept(key, lambda: LOAD(source, config_path))
    result.file = key
    return result


def load_from_package(source, config_path: str):
    return kept((source.path, config_path), lambda: LOAD_FROM_PACKAGE(source, config_path))


def share_sources(caching, repository) -> None:
    """Hydra copies the sources too, which it only ever replaces as a whole."""
    caching.delegate, caching.cache = copy.copy(repository), {}


def merged(loader, defaults, repo):
    files = tuple(getattr(repo.load_config(one.config_path), "file", None) for one in defaults)
    return kept((repr(defaults), files), lambda: MERGE(loader, defaults, repo))


def interpolation_map(overrides, defaults, self_added):
    """Which nothing looks at where no choice is an interpolation."""
    if any(one.is_interpolation() for one in defaults if not one.is_self()):
        return MAP(overrides, defaults, self_added)
    return None
