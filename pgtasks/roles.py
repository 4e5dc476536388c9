"""Roles: the SQL that makes one for each kind of program, with the rights it needs."""

import re
from typing import Final

from pgtasks.errors import ConfigError
from pgtasks.store import statement

ROLES: Final = ("admin", "worker", "producer", "reader")
PREFIX: Final = "pgtasks"

_PREFIX: Final = re.compile(r"(?!pg_)[a-z][a-z0-9_]{0,39}", re.ASCII)


def script(prefix: str = PREFIX) -> str:
    """Return one SQL script that makes the roles and gives them their rights.

    Args:
        prefix: what the names of the roles begin with. Roles are the server's, not the
            database's: give each application its own.

    Raises:
        ConfigError: no name of a role can begin so.

    Example:
        `script("shop")` makes shop_admin, shop_worker, shop_producer and shop_reader.
    """
    if _PREFIX.fullmatch(prefix) is None:
        raise ConfigError(
            f"{prefix!r:.60} cannot begin the name of a role: use 1 to 40 of a-z, 0-9 and _, "
            'starting with a letter, but not with "pg_"'
        )
    text = statement("roles")
    for role in ROLES:
        text = text.replace(f"{{{role}}}", f"{prefix}_{role}")
    return text
