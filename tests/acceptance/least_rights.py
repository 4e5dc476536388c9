"""Workers with the rights of a worker and no more, as one of the roles of `pgtasks db roles`."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from uuid import uuid4

from acceptance.addresses import run_statement

from pgtasks import roles


@contextmanager
def as_a_worker(database_url: str) -> Iterator[Mapping[str, str]]:
    """Make the roles for the length of a block; gives what a worker is told to be one of them."""
    prefix = f"least_{uuid4().hex[:12]}"
    run_statement(database_url, roles.script(prefix))
    run_statement(database_url, f"ALTER ROLE {prefix}_worker LOGIN")
    try:
        yield {
            "PGTASKS_DATABASE_URL": database_url.replace("//postgres@", f"//{prefix}_worker@"),
            "PGTASKS__WORKER__INSTALL__ENABLE": "false",
        }
    finally:
        for role in roles.ROLES:
            name = f"{prefix}_{role}"
            run_statement(database_url, f"DROP OWNED BY {name} CASCADE")
            run_statement(database_url, f"DROP ROLE {name}")
