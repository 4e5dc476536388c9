"""Every key of a TOML text has its line, however it is spelt."""

import json
import re
import tomllib

from hypothesis import given
from hypothesis import strategies as st

from pgtasks.toml_lines import key_lines

DOCUMENT = """\
# a comment with "quotes" and [brackets]
top = 1
dotted . "quoted.key" . 'third' = 2

[worker] # trailing
text = "not = a key # nor a comment \\" still"
literal = 'C:\\dir'
many = [
    1, # ] not the end
    "]", '''
fake = 3
''',
    { inside = 1, deep = { deeper = 2 } },
    [ [ 2 ], { other = [
        3,
    ] } ],
]
after_many = 1
block = \"\"\"
[fake]
fake = 1 \\\"\"\" still inside
two quotes end it \"\"\"\"\"
after_block = 1
inline = { a = 1, b.c = "x", "d e" = [1,
2], f = {} }
moment = 1979-05-27 07:32:00 # with a space
empty = ""
[ worker . "queue config" . sub ]
x = 1
[[list]]
x = 1
[[list]]
x = 2
y = 3
[worker.last]
"""


def test_lines_of_a_document() -> None:
    tomllib.loads(DOCUMENT)
    expected = {
        "top": 2,
        "dotted": 3,
        "dotted|quoted.key": 3,
        "dotted|quoted.key|third": 3,
        "worker": 5,
        "worker|text": 6,
        "worker|literal": 7,
        "worker|many": 8,
        "worker|many|inside": 13,
        "worker|many|deep": 13,
        "worker|many|deep|deeper": 13,
        "worker|many|other": 14,
        "worker|after_many": 18,
        "worker|block": 19,
        "worker|after_block": 23,
        "worker|inline": 24,
        "worker|inline|a": 24,
        "worker|inline|b": 24,
        "worker|inline|b|c": 24,
        "worker|inline|d e": 24,
        "worker|inline|f": 25,
        "worker|moment": 26,
        "worker|empty": 27,
        "worker|queue config": 28,
        "worker|queue config|sub": 28,
        "worker|queue config|sub|x": 29,
        "list": 30,
        "list|x": 31,
        "list|y": 34,
        "worker|last": 35,
    }
    for text in (DOCUMENT, DOCUMENT.replace("\n", "\r\n")):
        assert {"|".join(path): line for path, line in key_lines(text).items()} == expected


def test_lines_of_nothing() -> None:
    assert key_lines("") == {}
    assert key_lines("\n# only a comment") == {}


TRICKY_VALUES = [
    "1",
    "-1.5e3",
    "true",
    "1979-05-27 07:32:00",
    '"a # b = [c]"',
    "'\\'",
    "''",
    '""""""',
    "'''\n[fake]\nkey = 1'''''",
    '"""\n# key = 1\n\\"""x"\\\\""""',
    '[\n1, # ]\n"]",\n]',
    "[ [1,2],\n ['}'] ]",
    "[]",
    "{}",
]
KEYS = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="\x7f"), max_size=4
) | st.sampled_from(["worker", "queue-fetch", "1", "a_b"])


def _quoted(key: str) -> str:
    return json.dumps(key, ensure_ascii=False)


@st.composite
def documents(draw: st.DrawFn) -> tuple[str, dict[tuple[str, ...], int]]:
    """TOML in many spellings, and the line of each of its keys."""
    text = ""
    lines: dict[tuple[str, ...], int] = {}
    for table in draw(st.lists(KEYS, unique=True, max_size=4)):
        text += draw(st.sampled_from(["", "\n", "# [x]\n", " \t\n"]))
        lines[(table,)] = text.count("\n") + 1
        text += f"[ {_quoted(table)} ] # c\n"
        for key in draw(st.lists(KEYS, unique=True, max_size=4)):
            spelt = key if re.fullmatch(r"[A-Za-z0-9_-]+", key) else _quoted(key)
            inner = draw(st.none() | KEYS)
            line = text.count("\n") + 1
            lines[(table, key)] = line
            value = draw(st.sampled_from(TRICKY_VALUES))
            if inner is None:
                text += f"{spelt}={value}\n"
                continue
            lines[(table, key, inner)] = line
            dotted = f"{spelt} . {_quoted(inner)} = {value} # c\n"
            inline = f"{spelt} = {{ {_quoted(inner)} = {value} }}\n"
            text += draw(st.sampled_from([dotted, inline]))
    return text, lines


@given(documents())
def test_lines_of_any_document(document: tuple[str, dict[tuple[str, ...], int]]) -> None:
    text, lines = document
    tomllib.loads(text)
    assert key_lines(text) == lines
