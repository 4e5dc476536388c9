"""Text that is safe to log: on its line, bounded, without passwords of URLs."""

import re
from typing import Final

MASK: Final = "***"

_LONGEST: Final = 8_000
_MARGIN: Final = 16_000
_WORD: Final = re.compile(r"[^\s\"']+")
_USER: Final = re.compile(r"://[^:/@]*:")
# Controls, surrogates, and what reorders or breaks lines without being a control.
_UNSAFE: Final = re.compile(
    "[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)


def one_line(text: str) -> str:
    r"""Text that stays on its line: controls, escapes and line breaks are spelt out, as in `\n`."""
    return spelt_out(bounded(text))


def spelt_out(text: str) -> str:
    r"""Text whose controls, escapes and line breaks are spelt out, as in `\n`."""
    return _UNSAFE.sub(_spelt, text)


def bounded(text: str, limit: int = _LONGEST) -> str:
    """Text without passwords of URLs, and at most `limit` long: the middle gives way.

    It takes no longer for a text of any length than for a short one: what a message holds gets
    into errors, and nothing else runs meanwhile.
    """
    length, kept = len(text), limit + _MARGIN
    if length > 2 * kept:
        # A password may be cut in two here: what could be half of one counts as one.
        text = f"{text[:kept]}@ ... ://:{text[-kept:]}"
    if "://" in text:  # before cutting, which could part a password from its "@"
        text = _WORD.sub(_without_password, text)
    if length <= limit or len(text) <= limit:
        return text[:limit]
    gap = f" ... {length - limit} characters left out ... "
    head = max(0, limit - len(gap)) // 2
    tail = max(0, limit - len(gap) - head)
    return f"{text[:head]}{gap}{text[len(text) - tail :]}"[:limit]


def text_of(value: object) -> str:
    """`str(value)`, whatever it does."""
    try:
        return str(value)
    except Exception as error:  # noqa: BLE001 - __str__ is user code
        return f"<str() of this {type(value).__name__} raised {type(error).__name__}>"


def _without_password(word: re.Match[str]) -> str:
    text = word[0]
    at = text.rfind("@")
    # Not one expression for both: on "://a:://a:" without end it would try each with each.
    user = _USER.search(text, 0, max(at, 0))
    return text if user is None else f"{text[: user.end()]}{MASK}{text[at:]}"


def _spelt(match: re.Match[str]) -> str:
    code = ord(match[0])
    short = {9: r"\t", 10: r"\n", 13: r"\r"}.get(code)
    return short or (f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}")
