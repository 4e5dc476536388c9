"""Measurement: how long a file is, and for Python how many functions it has. Pure but for reading.

Other files than Python's are counted in bytes and lines only.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

import attrs

MAX_BYTES = 4_000_000
"""Longer files are refused: a syntax tree takes about a hundred times its source in memory."""

_BLOCKS = ("body", "orelse", "finalbody", "handlers", "cases")


@attrs.frozen
class Function:
    """A function: its name with the classes around it, its first line and its length in lines."""

    name: str
    line: int
    lines: int


NONE = Function("", 0, 0)
"""Stands for the longest function of a file that has none."""


@attrs.frozen
class Measurement:
    """What is known of one file."""

    bytes: int
    lines: int
    functions: int = 0
    longest: Function = NONE


def measure_file(path: Path) -> Measurement:
    """Read a file and measure it.

    Raises:
        OSError: it is gone or cannot be read.
        SyntaxError: it is called .py and is no Python.
        ValueError: it is too long, or holds what no source may hold.
    """
    with path.open("rb") as file:
        source = file.read(MAX_BYTES + 1)
    if len(source) > MAX_BYTES:
        raise ValueError(f"the file is longer than {MAX_BYTES:,} bytes; it is not measured")
    lines = source.count(b"\n") + (not source.endswith(b"\n") and bool(source))
    if path.suffix != ".py":
        return Measurement(len(source), lines)
    functions = list(find_functions(ast.parse(source, path.name)))
    longest = max(functions, key=lambda function: function.lines, default=NONE)
    return Measurement(len(source), lines, len(functions), longest)


def find_functions(tree: ast.Module) -> Iterator[Function]:
    """Yield every function of a module, those in classes and in other functions included."""
    # Not ast.walk: functions are statements, and nine in ten nodes are expressions.
    waiting: list[tuple[ast.AST, str]] = [(tree, "")]
    while waiting:
        node, prefix = waiting.pop()
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            end = node.end_lineno or node.lineno
            yield Function(prefix + node.name, node.lineno, end - node.lineno + 1)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            prefix = f"{prefix}{node.name}."
        for block in _BLOCKS:
            inner = getattr(node, block, ())
            if isinstance(inner, list):  # a lambda's body is an expression
                waiting += [(child, prefix) for child in inner]
