"""Say what a command needs to have installed, before Hydra looks for it."""

from collections.abc import Sequence
from importlib import metadata
from importlib.util import find_spec

from experiments.config.installation import install_command

LOGGERS = ("wandb", "mlflow")
EXTRAS = {"joblib": "joblib", "submitit_local": "submitit", "submitit_slurm": "submitit", "ray": "ray"}


def missing_extra(arguments: Sequence[str]) -> str | None:
    """What has to be installed, or removed, for the choices on a command line."""
    chosen = dict(argument.partition("=")[::2] for argument in arguments)
    launcher = EXTRAS.get(chosen.get("hydra/launcher", ""))
    if launcher and not installed(f"hydra_plugins.hydra_{launcher}_launcher"):
        return f"hydra/launcher={chosen['hydra/launcher']}: it needs a package more. Type {install_command(launcher)}"
    for logger in chosen.get("logger", "").strip("[]").split(","):
        if logger.strip() in LOGGERS and not installed(logger.strip()):
            return f"logger={logger.strip()}: it needs a package more. Type {install_command(logger.strip())}"
    if chosen.get("model") == "pretrained" and not installed("timm"):
        return f"model=pretrained: it needs a package more. Type {install_command('pretrained')}"
    if chosen.get("hydra/sweeper") == "optuna" or chosen.get("sweep", "null") != "null":
        return unfit_optuna()
    return None


def unfit_optuna() -> str | None:
    """Why a sweep cannot use Optuna here."""
    if installed("hydra_plugins.hydra_optuna_sweeper"):
        return (
            "the package hydra-optuna-sweeper is installed; it knows Optuna up to 2 and takes the name "
            "hydra/sweeper=optuna from this project's sweeper: pip uninstall hydra-optuna-sweeper"
        )
    return _unfit("optuna", 5, "sweeps need Optuna", "sweep")


def unfit_gradio() -> str | None:
    """Why the demo cannot use Gradio here."""
    return _unfit("gradio", 6, "the demo needs Gradio", "demo")


def _unfit(package: str, major: int, need: str, extra: str) -> str | None:
    version = metadata.version(package) if installed(package) else None
    if version is None or int(version.partition(".")[0]) != major:
        found = f"{package} {version} is installed" if version else f"there is no {package}"
        return f"{need} {major}, and {found}: {install_command(extra)}"
    return None


def installed(module: str) -> bool:
    """Whether a module could be imported, without importing it."""
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:  # not even its parent is there
        return False
