"""Configs composed in a third of the time: what Hydra makes of the same files again is taken from memory.

A run of all tests composes some two thousand configs, of forty files each. What is kept is known by its file's path,
time and size, so that a test that writes a file gets what it wrote.
"""

import copy
import functools
import pickle
from pathlib import Path

import omegaconf._utils
import omegaconf.base
import omegaconf.grammar_parser
from hydra._internal import defaults_list
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.config_repository import CachingConfigRepository, ConfigRepository
from hydra._internal.sources_registry import SourcesRegistry
from hydra.core.default_element import ResultDefault
from hydra.core.object_type import ObjectType
from hydra.core.plugins import Plugins
from hydra.plugins.config_source import ConfigResult

Plugins.instance()  # which registers the sources
FILES, PACKAGES, STORE = (SourcesRegistry.instance().resolve(scheme) for scheme in ("file", "pkg", "structured"))
IS_CONFIG = PACKAGES.is_config
LOAD = ConfigRepository.load_config
MERGE = ConfigLoaderImpl._compose_config_from_defaults_list
MAP = defaults_list._create_interpolation_map
KEPT: dict[tuple, bytes] = {}
READ: dict[tuple, ConfigResult] = {}
IN_PACKAGES: dict[tuple[str, str], bool] = {}
MERGED = "hydra/<merged>"
PARSE = functools.cache(omegaconf.grammar_parser.parse)


def compose_quickly() -> None:
    """From here on, let Hydra keep the files that it has parsed, and what it has merged them to."""
    ConfigRepository.load_config = load
    PACKAGES.is_config = is_config
    ConfigLoaderImpl._compose_config_from_defaults_list = merged
    CachingConfigRepository.__init__ = share_sources
    defaults_list._create_interpolation_map = interpolation_map
    omegaconf.base.parse = omegaconf._utils.parse = PARSE


def kept(key: tuple, make):
    """A copy of what was made for this key before, or else now."""
    if key not in KEPT:
        made = make()
        try:
            KEPT[key] = pickle.dumps(made)
        except pickle.PicklingError:  # of a plugin's class, whose module Hydra has run twice
            return made
    return pickle.loads(KEPT[key])


def load(repository, config_path: str):
    """What is read of a file, which is not changed before it is merged."""
    source = repository._find_object_source(config_path, ObjectType.CONFIG)
    key = None
    if isinstance(source, FILES):
        path = Path(source.path, source._normalize_file_name(config_path))
        file = path.stat()
        key = (str(path), source.provider, file.st_mtime_ns, file.st_size, file.st_ino)
    elif isinstance(source, PACKAGES):
        key = (source.path, config_path)
    elif isinstance(source, STORE):
        key = (config_path, id(source.store._load(source._normalize_file_name(config_path))))
    if key is None:
        return LOAD(repository, config_path)
    if key not in READ:
        READ[key] = LOAD(repository, config_path)
        READ[key].file = key
    return READ[key]


def is_config(package, config_path: str) -> bool:
    """Whether a package has the file, which does not change."""
    key = (package.path, config_path)
    if key not in IN_PACKAGES:
        IN_PACKAGES[key] = IS_CONFIG(package, config_path)
    return IN_PACKAGES[key]


def share_sources(caching, repository) -> None:
    """Hydra copies the sources too, which it only ever replaces as a whole."""
    caching.delegate, caching.cache = copy.copy(repository), {}


class Copies:
    """A repository whose files' values may be changed, as they are when they are merged into others."""

    def __init__(self, repository, merged=None) -> None:
        self.get_schema_source, self.repository, self.merged = repository.get_schema_source, repository, merged

    def load_config(self, config_path: str):
        if config_path == MERGED:
            return ConfigResult(config=self.merged, header={"package": None}, provider="", path="")
        result = copy.copy(self.repository.load_config(config_path))
        key = getattr(result, "file", None)
        result.config = kept(key, lambda: result.config) if key else copy.deepcopy(result.config)
        return result


def merged(loader, defaults, repo):
    """All that a config is made of, merged; of Hydra's own part, which comes first, the result is kept too."""
    ours = next((i for i, one in enumerate(defaults) if not one.config_path.startswith("hydra/")), 0)
    hydra = kept(identity(defaults[:ours], repo), lambda: MERGE(loader, defaults[:ours], Copies(repo)))
    all_of_hydra = ResultDefault(config_path=MERGED, package="", primary=True)
    return kept(
        identity(defaults, repo), lambda: MERGE(loader, [all_of_hydra, *defaults[ours:]], Copies(repo, hydra))
    )


def identity(defaults, repo) -> tuple:
    return repr(defaults), tuple(getattr(repo.load_config(one.config_path), "file", None) for one in defaults)


def interpolation_map(overrides, defaults, self_added):
    """Which nothing looks at where no choice is an interpolation."""
    if any(one.is_interpolation() for one in defaults if not one.is_self()):
        return MAP(overrides, defaults, self_added)
    return None
