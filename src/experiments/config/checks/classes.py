"""Find classes that do not exist or do not take what they are given; imports them, builds nothing."""

from collections.abc import Iterator, Sequence

from experiments.config.checks.annotations import fits, named
from experiments.config.checks.check import describe_mistake
from experiments.config.checks.class_combinations import class_combinations
from experiments.config.checks.sections import Config, Fault, targets
from experiments.config.checks.targets import NotFound, locate, taken
from experiments.config.spelling import did_you_mean

FACTS = ("num_classes", "in_channels", "image_size", "in_features")


#: What ``build`` adds to what stands in a config: to a key, or to every key below it.
GIVEN = {
    "model": ("net", "loss", "optimizer", "scheduler", "metrics", "num_classes", "card"),
    "model.net": FACTS,
    "metrics": FACTS,
    "loss": ("class_counts",),
    "trainer": ("callbacks", "logger", "plugins"),
}


def _of_target(name: str, part: Config) -> Iterator[Fault]:
    target = part["_target_"]
    try:
        made = locate(target)
    except NotFound as error:
        yield f"{name}._target_", target, str(error)
        return
    parameters, annotations, any_other = taken(made)
    group = name if name in GIVEN else name.partition(".")[0]
    given = GIVEN.get(group, ()) if name == group or group == "metrics" else ()
    for key, value in part.items():
        if key in ("_target_", "_partial_", "_args_", "_convert_", "_recursive_") or (
            name == "model" and key == "net"
        ):
            continue
        if key not in parameters:
            if not any_other:
                built = {
                    one for one, each in parameters.items() if part.get("_partial_") and each.default is each.empty
                }
                known = [one for one in parameters if one in FACTS or one not in {*given, *built}]
                takes = f"It takes {', '.join(known)}" if known else "It takes none"
                own = "; data=custom gives a data set of your own no key but those you add" if name == "data" else ""
                yield f"{name}.{key}", value, f"is no argument of {target}.{did_you_mean(key, known)} {takes}{own}"
        elif value is None and key in given:
            continue
        elif not fits(value, annotations[key]):
            yield f"{name}.{key}", value, f"must be {named(annotations[key])}, as {target} says"
    if not part.get("_partial_"):
        required = [key for key, parameter in parameters.items() if parameter.default is parameter.empty]
        if missing := [key for key in required if key not in part and key not in given]:
            yield name, "", f"lacks {', '.join(missing)}, which {target} needs: +{name}.{missing[0]}=..."


def class_mistakes(config: Config, typed: Sequence[str] = ()) -> list[str]:
    """Everything that is wrong with a config that the first pass has passed.

    Args:
        config: plain values, resolved: what ``experiments.compose`` returns.
        typed: the command line's overrides, to say which mistakes come from there.
    """
    found = [fault for name, part in targets(config) for fault in _of_target(name, part)]
    wrong = {name for name, *_ in found}
    found += [fault for fault in class_combinations(config) if fault[0] not in wrong]
    return [describe_mistake(*fault, typed) for fault in {fault[0]: fault for fault in found}.values()]
