"""Values that each kind of setting takes, and values that it refuses: for whatever keys there are.

A kind that is missing here fails the tests that ask for it, so that no new one goes untried.
"""

import re
import tomllib
from datetime import timedelta
from typing import Any, Final

from hypothesis import strategies as st
from msgspec import UNSET

from pgtasks.duration import format_duration
from pgtasks.setting_kind import (
    Choice,
    Duration,
    Inherited,
    Kind,
    Listen,
    ModuleName,
    Name,
    QueueName,
    Several,
    Switch,
    Url,
    Whole,
)

NOT_EVEN_TEXT = ("1979-05-27", "{ a = 1 }", "[[1]]")
"""No kind takes these, as TOML writes them."""
HUGE = "1" * 40


def right(kind: Kind) -> st.SearchStrategy[Any]:
    """Values that a kind takes, in their Python types."""
    values = _right(kind)
    return values | st.none() if kind.optional else values


def _right(kind: Kind) -> st.SearchStrategy[Any]:  # noqa: C901, PLR0911 - a table
    match kind:
        case Switch():
            return st.booleans()
        case Whole():
            return st.integers(kind.minimum, kind.maximum)
        case Duration():
            return st.timedeltas(kind.minimum, kind.maximum)
        case Choice():
            return st.sampled_from(kind.words)
        case QueueName():
            return st.sampled_from(["default", "emails", "a_1"])
        case Name():
            return st.sampled_from(["shop", "my app", "Ü"])
        case Listen():
            return st.sampled_from(["127.0.0.1:9464", "[::1]:1", "127.0.0.1:65535"])
        case Url():
            return st.sampled_from(["postgres://a/b", "postgresql://u:p@h:1/d?x=y%20z"])
        case Several():
            return st.sampled_from([("a",), ("b", "c"), ("c", "a")])
        case Inherited():
            return right(kind.kind) | st.just(UNSET)
    raise AssertionError(kind)


def wrong(kind: Kind) -> list[str]:
    """Values that a kind refuses, as TOML writes them."""
    refused = _wrong(kind)
    return [*refused, *NOT_EVEN_TEXT]


def _wrong(kind: Kind) -> list[str]:  # noqa: C901, PLR0911 - a table
    match kind:
        case Switch():
            return ['"true"', '"yes"', '"maybe"', "1", "0", "0.5", "[]"]
        case Whole():
            near = f'"{kind.minimum}"'
            beyond = [str(kind.minimum - 1), str(kind.maximum + 1), f"-{HUGE}", HUGE]
            return [near, *beyond, '"many"', '"8 or so"', '""', "2.5", "nan", "true", "[3]"]
        case Duration():
            return [*_too_long_or_short(kind), '"soon"', '"30 sec"', '"5 Minutes"', '"1h 30m"',
                    '""', "-1", '"-5s"', "nan", "-inf", "true", "[1]"]  # fmt: skip
        case Choice():
            return [f'"{kind.words[0][:-1]}"', '"nonsense"', '""', "3", "true", "[]"]
        case QueueName():
            return ['"Not-A-Queue"', '"1st"', '"periodic"', f'"{"a" * 48}"', '""', "5", "true"]
        case Name():
            return ['""', r'"a\tb"', f'"{"a" * 101}"', "5", "[]"]
        case Listen():
            return ['""', '"localhost"', '"127.0.0.1:65536"', '"::1"', "0", "65536", "-1", "true"]
        case ModuleName():
            return ['"app/tasks.py"', '"app.class"', '"a..b"', '""', "5"]
        case Url():
            return ['"mysql://h/d"', '"postgresql+asyncpg://h/d"', '"host=h"',
                    '"postgresql://u:p[@h/d"', '""', "5"]  # fmt: skip
        case Several():
            items = [f"[{one}]" for one in wrong(kind.item)]
            return [*items, '"a"', '"a, b"', "5", "true", *["[]"] * kind.optional]
        case Inherited():
            return _wrong(kind.kind)
    raise AssertionError(kind)


def _too_long_or_short(kind: Duration) -> list[str]:
    step = timedelta(microseconds=1)
    shorter = [kind.minimum - step] if kind.minimum else []
    return [f'"{format_duration(length)}"' for length in (*shorter, kind.maximum + step)]


def wrong_texts(kind: Kind) -> list[str]:
    """Values that a kind refuses in variables and flags, where everything is text."""
    if isinstance(kind, Several):
        texts = wrong_texts(kind.item)
        return [f"{text},a" for text in texts] or texts
    texts = [tomllib.loads(f"x = {one}")["x"] for one in _wrong(kind)]
    taken = {"true", "yes"} if isinstance(kind, Switch) else set()
    found = [text for text in texts if isinstance(text, str) and text.strip() and text not in taken]
    # A number in quotes is a number there.
    return [text for text in found if not re.fullmatch(r"[0-9]+", text)]


_ADVICE: Final = re.compile(
    r"(?:write (?:at least |at most |seconds as a number, or |e\.g\. )*|did you mean |example )"
    r"(.+)$"
)


def proposed(problem: str) -> str | None:
    """What an error says to write instead; None where nothing of the kind can be said."""
    advice = _ADVICE.search(problem)
    if advice is None or problem.endswith("..."):
        return None
    if advice[1].startswith("["):
        return advice[1]
    quoted = re.match(r""""([^"]*)"|'([^']*)'""", advice[1])
    return (quoted[1] or quoted[2]) if quoted else advice[1].split()[0]


def takes(kind: Kind, text: str) -> bool:
    """Whether a kind takes what was proposed: a text, or a list as TOML writes it."""
    if text.startswith("[") and isinstance(kind, Several):
        return kind.read(tomllib.loads(f"x = {text}")["x"]) is not None
    inner = kind.item if isinstance(kind, Several) else kind
    return inner.parse(text) is not None
