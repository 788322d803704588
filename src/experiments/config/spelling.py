"""Suggest what was meant by a name that does not exist."""

from collections.abc import Sequence

SYNONYMS = {"learning_rate": "lr", "epochs": "max_epochs", "gpus": "devices"}  # what other frameworks call it


def did_you_mean(wrong: str, known: Sequence[str]) -> str:
    """``wrong``'s nearest neighbours as a question, or nothing."""
    from difflib import get_close_matches

    near = [SYNONYMS[wrong]] if SYNONYMS.get(wrong) in known else get_close_matches(wrong, known, n=3)
    return f" Did you mean {' or '.join(near)}?" if near else ""
