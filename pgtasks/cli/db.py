"""`pgtasks db`."""

from typing import TYPE_CHECKING, Annotated

from cyclopts import App, Parameter

from pgtasks.cli.help import DATABASE
from pgtasks.cli.options import NOTHING_GIVEN, Source
from pgtasks.cli.output import say

if TYPE_CHECKING:
    from pgtasks.store import Store

app = App(
    name="db", help="Install, upgrade and check the schema.", help_epilogue="", group=DATABASE
)


@app.command
async def upgrade(*, source: Source = NOTHING_GIVEN) -> None:
    """Bring the schema up to date; nothing happens when it is.

    Workers do so themselves unless worker.install.enable is false.

    For example:
      pgtasks db upgrade --database-url postgresql://admin@db/shop

    Args:
        source: The settings.
    """
    from pgtasks import migrate
    from pgtasks.cli.session import open_session

    async with open_session(source.load(), with_schema=False) as session:
        applied = await migrate.upgrade(session.connection)
        pgmq = await _whose_pgmq(session.store)
    for step in applied:
        say(f"applied {step.version:04} {step.name}")
    if not applied:
        say(f"up to date (version {migrate.migrations()[-1].version})")
    say(f"pgmq: {pgmq}")


@app.command
async def check(*, source: Source = NOTHING_GIVEN) -> None:
    """Check that the schema is the one that this pgtasks works with.

    For example:
      pgtasks db check && pgtasks worker shop.tasks

    Exit codes: 0 it is, 1 it is missing, older or newer.

    Args:
        source: The settings.
    """
    from pgtasks import migrate
    from pgtasks.cli.session import open_session

    async with open_session(source.load(), with_schema=False) as session:
        await migrate.check(session.connection)
        pgmq = await _whose_pgmq(session.store)
    say(f"up to date (version {migrate.migrations()[-1].version})")
    say(f"pgmq: {pgmq}")


@app.command(name="detach-pgmq")
async def detach_pgmq(*, source: Source = NOTHING_GIVEN) -> None:
    """Take our functions and types out of the schema pgmq, so that the real pgmq can move in.

    Queues, archives and their messages stay, and workers go on. The functions do not come back
    with a later upgrade. Nothing happens where pgmq is not ours.

    For example:
      pgtasks db detach-pgmq && psql -f pgmq.sql shop

    Args:
        source: The settings.
    """
    from pgtasks import migrate
    from pgtasks.cli.session import open_session

    async with open_session(source.load(), with_schema=False) as session:
        await migrate.detach_pgmq(session.connection)
    say("detached: the schema pgmq holds tables only; `pgtasks db attach-pgmq` is the way back")


@app.command(name="attach-pgmq")
async def attach_pgmq(*, source: Source = NOTHING_GIVEN) -> None:
    """Make pgmq's functions and types anew, after `pgtasks db detach-pgmq`.

    Nothing happens where they are there already, and nothing where another program's are.

    For example:
      pgtasks db attach-pgmq --database-url postgresql://admin@db/shop

    Args:
        source: The settings.
    """
    from pgtasks import migrate
    from pgtasks.cli.session import open_session

    async with open_session(source.load(), with_schema=False) as session:
        await migrate.attach_pgmq(session.connection)
        pgmq = await _whose_pgmq(session.store)
    say(f"pgmq: {pgmq}")


@app.command
def sql() -> None:
    """Print the SQL that installs the schema on a database that has none of it.

    For example:
      pgtasks db sql | psql -v ON_ERROR_STOP=1 shop
    """
    from pgtasks import migrate

    print(migrate.script(), end="")


@app.command
def roles(*, prefix: Annotated[str, Parameter(metavar="NAME")] = "pgtasks") -> None:
    """Print the SQL that makes roles with least rights: admin, worker, producer, reader.

    For a database with the schema in it. Later queues give these roles their rights by themselves.

    For example:
      pgtasks db roles --prefix shop | psql -v ON_ERROR_STOP=1 shop

    Args:
        prefix: What their names begin with; pgtasks.
    """
    from pgtasks.roles import script

    print(script(prefix), end="")


async def _whose_pgmq(store: "Store") -> str:
    from pgtasks.foreign_pgmq import ForeignPgmq

    return await ForeignPgmq.describe(store)
