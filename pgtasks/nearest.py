"""The known word that somebody probably meant."""

import difflib
from collections.abc import Sequence


def nearest(word: str, known: Sequence[str]) -> str | None:
    """The one of the known words most like this one, or None when none is alike."""
    return next(iter(difflib.get_close_matches(word, known, n=1)), None)
