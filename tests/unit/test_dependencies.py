"""What an installation brings along: what is documented with its reason, and nothing else."""

import ast
import re
import sys
import tomllib
from pathlib import Path

import pgtasks

ROOT = Path(__file__).parent.parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
NOTE = (ROOT / "docs/decisions/dependencies.md").read_text("utf-8")
EXTRAS = {"uvloop", "pytest"}
"""What is used where it is installed: uvloop by a worker, and the plugin by pytest alone."""


def required() -> dict[str, str]:
    """By name: which versions an installation takes."""
    found = {}
    for line in PROJECT["dependencies"]:
        match = re.fullmatch(r"([a-z0-9-]+)(\S*)", line)
        assert match is not None, line
        found[match[1]] = match[2]
    return found


def test_each_dependency_has_a_reason_and_each_reason_a_dependency():
    rows = re.findall(r"^\| [^|]+ \| ([^|]+) \| ([^|]+) \|$", NOTE, re.MULTILINE)
    taken = {word for cell, _ in rows for word in re.findall(r"[a-z0-9-]+", cell)}
    documented = {name for name in taken if name in required()}
    assert documented == set(required())
    reasons = [cell for cell, why in rows if len(why.strip()) > 10]
    assert len(reasons) >= len(required())


def test_nothing_else_is_imported():
    used = set()
    for file in Path(pgtasks.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            if isinstance(node, ast.Import):
                used |= {name.name.partition(".")[0] for name in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                used.add(node.module.partition(".")[0])
    foreign = used - set(sys.stdlib_module_names) - {"pgtasks", "__future__"}
    # rich comes with cyclopts, and is imported for the type checker only.
    assert foreign - EXTRAS - {"rich"} == set(required())


def test_each_has_a_least_version_and_none_a_place_to_come_from():
    """No address, no fork: what a registry has under that name."""
    for name, versions in required().items():
        assert re.fullmatch(r">=\d+(\.\d+)*(,<\d+)?", versions), (name, versions)
    extras = PROJECT["optional-dependencies"].values()
    every = [*PROJECT["dependencies"], *(line for extra in extras for line in extra)]
    assert not [line for line in every if "@" in line or "://" in line]
