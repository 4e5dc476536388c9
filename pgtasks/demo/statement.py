"""Statement: the demo's SQL, one statement a file in sql/."""

from functools import cache
from importlib.resources import files


@cache
def statement(name: str) -> str:
    """Return the text of demo/sql/<name>.sql."""
    return files("pgtasks.demo").joinpath("sql", f"{name}.sql").read_text(encoding="utf-8")
