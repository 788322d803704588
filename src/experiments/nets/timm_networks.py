"""Networks of timm by name, with weights that were trained before or without: the only module that knows timm."""

import threading
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import torch
from torch import Tensor, nn

from experiments.errors import UserError, did_you_mean

MAX_WAIT = 8  # seconds, for the hub that weights are fetched from
#: Arguments of timm's that fetch or read files, or change what is returned.
NOT_OPTIONS = {
    "pretrained", "pretrained_cfg", "pretrained_cfg_overlay", "pretrained_strict", "pretrained_filter_fn",
    "pretrained_custom_load", "checkpoint_path", "cache_dir", "scriptable", "exportable", "no_jit", "features_only",
    "feature_cfg", "in_chans", "img_size",
}  # fmt: skip


def pretrained(
    name: str = "resnet18",
    num_classes: int = 10,
    in_channels: int = 3,
    image_size: Sequence[int] | None = None,
    weights: str | Mapping[str, Tensor] | None = "default",
    drop_rate: float = 0.0,
    **options: Any,
) -> nn.Module:
    """Build a network of timm (https://github.com/huggingface/pytorch-image-models); its own names of layers stay.

    Args:
        name: as ``timm.list_models()`` has it, with a tag of its weights or without.
        num_classes: the number of logits; weights with another head are taken without it.
        in_channels: of the images; the first layer of weights for RGB is summed over colours for grey images.
        image_size: height and width, for networks that are built for one size.
        weights: ``default`` for timm's own, fetched once and kept; a ``state_dict``; None or ``none``: random ones.
        drop_rate: dropout before the head.
        options: further arguments of the architecture.

    Raises:
        ImportError: if timm is not installed.
        ValueError: if there is no such network, or it does not take an option.
        UserError: if weights cannot be fetched, or are another network's.
    """
    timm = _timm()
    if not timm.is_model(name):
        raise ValueError(f"name={name!r} is no network of timm.{did_you_mean(name, timm.list_models())}")
    if wrong := NOT_OPTIONS & options.keys():
        raise ValueError(f"{wrong.pop()} cannot be set: weights come from model.net.weights, the rest from the data")
    given = {"num_classes": num_classes, "in_chans": in_channels, **options}
    if drop_rate:
        given["drop_rate"] = drop_rate
    if image_size is not None and timm.get_pretrained_cfg(name).fixed_input_size:
        given["img_size"] = tuple(image_size)
    if weights in (None, "none"):
        return _create(timm, name, given)
    if not isinstance(weights, Mapping) and weights != "default":
        raise ValueError(f"weights={weights!r} must be default, none or a state_dict")
    net: Any = _create(timm, name, given)
    overlay: dict[str, Any] = {}
    if isinstance(weights, Mapping):
        overlay = {"state_dict": dict(weights), "label_offset": 0, **_told_by(weights, net.pretrained_cfg)}
    elif cached := _cached_file(net):
        from timm.models import load_state_dict

        overlay = {"state_dict": load_state_dict(cached, use_ema=False)}
    else:
        _require_hub(name, net)
    try:
        loaded = _create(timm, name, {**given, "pretrained": True, "pretrained_cfg_overlay": overlay})
    except (RuntimeError, KeyError, OSError) as error:
        raise UserError(f"model.net.weights do not fit {name}: {str(error).strip().splitlines()[0]}") from error
    if missed := _unchanged(net, loaded):
        raise UserError(
            f"model.net.weights do not fit {name}: nothing in them for {', '.join(missed[:8])}"
            + (f" and {len(missed) - 8} more" if len(missed) > 8 else "")
        )
    return loaded


def _told_by(weights: Mapping[str, Tensor], source: Mapping[str, Any]) -> dict[str, Any]:
    """How many classes and channels weights are for, by the shapes of their head and first layer."""

    def layers(key: str) -> list[Tensor]:
        named = source.get(key) or ()
        names = [named] if isinstance(named, str) else named
        return [weights[f"{name}.weight"] for name in names if f"{name}.weight" in weights]

    told: dict[str, Any] = {"num_classes": next(map(len, layers("classifier")), -1)}
    for first in layers("first_conv"):
        told["input_size"] = (first.shape[1], *source["input_size"][1:])
    return told


def pretrained_input(name: str) -> dict[str, Any]:
    """The ``mean``, ``std`` and ``image_size`` with which the weights of a name were trained; empty if unknown."""
    timm = _timm()
    known = timm.get_pretrained_cfg(name) if timm.is_model(name) else None
    if known is None or not known.mean or not known.std:
        return {}
    return {"mean": list(known.mean), "std": list(known.std), "image_size": list(known.input_size[1:])}


def _timm() -> Any:
    try:
        import timm
    except ImportError:
        raise ImportError("model=pretrained needs a package more. Type pip install timm") from None
    return timm


def _create(timm: Any, name: str, arguments: dict[str, Any]) -> nn.Module:
    """Build a network; the same random numbers are drawn for every one, and none of the caller's."""
    try:
        with torch.random.fork_rng(devices=[]):
            net: nn.Module = timm.create_model(name, **arguments)
    except TypeError as error:
        if "img_size" in arguments and "img_size" in str(error):
            return _create(timm, name, {key: value for key, value in arguments.items() if key != "img_size"})
        raise ValueError(f"{name} does not take its options: {error}") from error
    return net


def _unchanged(before: nn.Module, after: nn.Module) -> list[str]:
    """Weights outside the head that loading has left as they were drawn."""
    other: Any = after
    heads = other.get_classifier()
    own = {id(parameter) for head in (heads if isinstance(heads, (tuple, list)) else [heads])
           if isinstance(head, nn.Module) for parameter in head.parameters()}  # fmt: skip
    pairs = zip(before.named_parameters(), after.named_parameters(), strict=True)
    return [
        name
        for (name, first), (_, second) in pairs
        if second.ndim > 1 and id(second) not in own and first.equal(second) and first.std() > 0
    ]


def require_weights(name: str) -> None:
    """Raise UserError if timm's weights for a name are neither on this machine nor to be had."""
    with torch.device("meta"):
        net = pretrained(name, weights=None)
    if not _cached_file(net):
        _require_hub(name, net)


def _cached_file(net: Any) -> str | None:
    """The weights of timm's that were fetched before; the hub would be asked whether there are newer ones."""
    from huggingface_hub import try_to_load_from_cache

    source = net.pretrained_cfg
    names = (
        [source["hf_hub_filename"]] if source.get("hf_hub_filename") else ["model.safetensors", "pytorch_model.bin"]
    )
    found = [try_to_load_from_cache(source["hf_hub_id"], name) for name in names if source.get("hf_hub_id")]
    return next((path for path in found if isinstance(path, str)), None)


def _require_hub(name: str, net: Any) -> None:
    """Raise UserError if there are no weights, or the hub does not answer soon; timm would try for long."""
    source = net.pretrained_cfg
    if not source.get("hf_hub_id") and not source.get("url"):
        raise UserError(f"model.net.weights=default: timm has no weights for {name}. Type model.net.weights=none")
    from huggingface_hub.constants import ENDPOINT

    answered = threading.Event()

    def ask() -> None:
        try:
            urlopen(Request(ENDPOINT, method="HEAD"), timeout=MAX_WAIT).close()
        except HTTPError:  # an answer, too
            pass
        except OSError:
            return
        answered.set()

    asking = threading.Thread(target=ask, daemon=True)  # looking up a name knows no time limit
    asking.start()
    asking.join(MAX_WAIT)
    if not answered.is_set():
        raise UserError(
            f"model.net.weights=default: the weights of {name} are not on this machine, and {ENDPOINT} does not "
            "answer. Connect to it, or type model.net.weights=<file> for weights of yours, model.net.weights=none to "
            "start without"
        )
