"""The schema: numbered migrations, applied once each, by one process at a time."""

import re
from importlib.resources import files

import asyncpg
import attrs

from pgtasks.connection import Connection
from pgtasks.errors import SchemaError
from pgtasks.foreign_pgmq import ForeignPgmq
from pgtasks.store import Store, statement

OLDEST_SERVER = 140000
"""PostgreSQL 14, as `server_version_num`."""

# Any number will do as long as it stays: processes that migrate wait for each other on it.
_LOCK = 0x7067_7461_736B_73  # "pgtasks"

# What a migration calls is Postgres' own, whatever somebody has put into the schema public.
_ONLY_BUILT_IN = "SET LOCAL search_path = pg_catalog, pg_temp"

# Whatever limits the role has, made for other programs: to wait for another process's upgrade, and
# for those who use the tables, is no stall.
_UNLIMITED = "SET LOCAL statement_timeout = 0; SET LOCAL lock_timeout = 0"

# The first steps were written when every pgmq was ours. On one that is somebody else's they are not
# to need a right that guests have no use for, nor to put indexes on archives.
_FOR_GUESTS_TOO = {
    1: (
        (
            "CREATE SCHEMA IF NOT EXISTS pgmq;",
            """DO $$ BEGIN
    IF to_regnamespace('pgmq') IS NULL THEN CREATE SCHEMA pgmq; END IF; END $$;""",
        ),
        (
            "CREATE TABLE IF NOT EXISTS pgmq.meta (",
            "DO $$ BEGIN IF to_regclass('pgmq.meta') IS NULL THEN CREATE TABLE pgmq.meta (",
        ),
        (
            "    created_at timestamptz NOT NULL DEFAULT now()\n);",
            "    created_at timestamptz NOT NULL DEFAULT now()\n); END IF; END $$;",
        ),
    ),
    3: (
        (
            "WHERE pgtasks.is_queue_name(queue_name)\n",
            """WHERE pgtasks.is_queue_name(queue_name)
    AND NOT EXISTS (SELECT FROM pg_proc WHERE pronamespace = 'pgmq'::regnamespace)
""",
        ),
        (
            """attname IN ('msg_id', 'archived_at', 'headers')
    ) = 3""",
            """attname IN ('msg_id', 'archived_at', 'headers', 'last_read_at')
    ) = 4""",
        ),
    ),
}

# The steps of this name are for a pgmq that is ours; see the first of them, 0005.
_OWN_PGMQ = "pgmq_"

# The part of step 5 that makes the schema pgmq ours, by its first and last line. It does nothing
# where it is ours already, or somebody else's.
_TAKE_PGMQ = re.compile(
    r"^-- Whether nobody's code is in pgmq,.*^DROP FUNCTION pgtasks\.is_pgmq_free\(\);$",
    re.DOTALL | re.MULTILINE,
)

_BY_THE_OWNER = "Do it as the owner of the schemas pgmq and pgtasks."

# For whoever runs the script by hand; see also ForeignPgmq.check.
_REFUSE_OLD_PGMQ = """
DO $refuse$
BEGIN
    IF EXISTS (
        SELECT FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace
        WHERE nspname = 'pgmq' AND relname = 'message_record' AND NOT EXISTS (
            SELECT FROM pg_attribute WHERE attrelid = pg_class.oid AND attname = 'headers'
        )
    ) THEN
        RAISE EXCEPTION 'pgtasks: the pgmq of this database is older than 1.5'
            USING HINT = 'Upgrade it, or use a database without pgmq.';
    END IF;
END
$refuse$;
"""


@attrs.frozen
class Migration:
    """One numbered step of the schema."""

    version: int
    name: str
    text: str


def migrations() -> list[Migration]:
    """Return all steps this version of pgtasks knows, in order."""
    folder = files("pgtasks").joinpath("sql", "migrations")
    steps = []
    for file in folder.iterdir():
        if match := re.fullmatch(r"(\d{4})_(\w+)\.sql", file.name):
            version, name = int(match[1]), match[2]
            text = _guarded(version, name, file.read_text(encoding="utf-8"))
            steps.append(Migration(version, name, text))
    return sorted(steps, key=lambda step: step.version)


def _guarded(version: int, name: str, text: str) -> str:
    for written, meant in _FOR_GUESTS_TOO.get(version, ()):
        text = text.replace(written, meant)
    if name.startswith(_OWN_PGMQ):
        text = (
            "DO $own$ BEGIN IF pgtasks.owns_pgmq() THEN EXECUTE $step$\n"
            f"{text}\n$step$; END IF; END $own$;\n"
        )
    return text


async def upgrade(connection: Connection) -> list[Migration]:
    """Apply what is missing, in one transaction, and return it.

    Raises:
        SchemaError: the server or its pgmq is too old, the schema is newer than this pgtasks, or
            the role may not create it.
    """
    await _check_server(connection)
    if not await _missing(connection):
        return []
    try:
        async with connection.transaction(isolation="read_committed"):
            await connection.execute(_ONLY_BUILT_IN)
            await connection.execute(_UNLIMITED)
            await connection.execute(f"SELECT pg_advisory_xact_lock({_LOCK})", timeout=600)
            missing = await _missing(connection)
            for step in missing:
                await connection.execute(step.text, timeout=600)
                await Store(connection).record_migration(step.version, step.name)
            return missing
    except asyncpg.InsufficientPrivilegeError as error:
        raise SchemaError(
            f"this role may not install the pgtasks schema: {error}\n"
            "Run `pgtasks db upgrade` once as a role that may create schemas, or give the output "
            "of `pgtasks db sql` to whoever keeps the database; workers need no such right."
        ) from error


async def check(connection: Connection) -> None:
    """Make sure that the schema is the one this version of pgtasks works with.

    Raises:
        SchemaError: it is missing, older or newer; the text names the command that mends it.
    """
    await _check_server(connection)
    if missing := await _missing(connection):
        have = len(migrations()) - len(missing)
        what = "has no pgtasks schema" if have == 0 else f"has an older pgtasks schema ({have})"
        raise SchemaError(
            f"this database {what}; this pgtasks needs version {migrations()[-1].version}\n"
            "Run `pgtasks db upgrade`."
        )


async def detach_pgmq(connection: Connection) -> None:
    """Take our functions and types out of the schema pgmq, so that the real pgmq can move in.

    Queues, archives and all other tables stay. No later upgrade brings the functions back.

    Raises:
        SchemaError: they are not ours, not this role's, or something is built on them.
    """
    await check(connection)
    try:
        async with connection.transaction(isolation="read_committed"):
            await connection.execute(_ONLY_BUILT_IN)
            await connection.execute(f"SELECT pg_advisory_xact_lock({_LOCK})", timeout=600)
            await Store(connection).detach_pgmq()
    except (
        asyncpg.ObjectNotInPrerequisiteStateError,
        asyncpg.DependentObjectsStillExistError,
    ) as error:
        raise SchemaError(f"nothing was detached: {error}") from error
    except asyncpg.InsufficientPrivilegeError as error:
        raise SchemaError(f"nothing was detached: {error}\n{_BY_THE_OWNER}") from error


async def attach_pgmq(connection: Connection) -> None:
    """Make pgmq's functions and types anew, after they were detached; nothing where they are ours.

    Raises:
        SchemaError: something of another pgmq is there, or the role may not create in it.
    """
    await check(connection)
    steps = migrations()
    try:
        async with connection.transaction(isolation="read_committed"):
            await connection.execute(_ONLY_BUILT_IN)
            await connection.execute(_UNLIMITED)
            await connection.execute(f"SELECT pg_advisory_xact_lock({_LOCK})", timeout=600)
            if await Store(connection).owns_pgmq():
                return
            [take] = filter(None, (_TAKE_PGMQ.search(step.text) for step in steps))
            await connection.execute(take[0])
            if not await Store(connection).owns_pgmq():
                raise SchemaError(await _why_not_attached(connection))
            for step in steps:
                if step.name.startswith(_OWN_PGMQ):
                    await connection.execute(step.text, timeout=600)
    except asyncpg.InsufficientPrivilegeError as error:
        raise SchemaError(f"nothing was attached: {error}\n{_BY_THE_OWNER}") from error


async def _why_not_attached(connection: Connection) -> str:
    if foreign := await ForeignPgmq.find(Store(connection)):
        return f"nothing was attached: this database has {foreign.name}"
    return (
        "nothing was attached: this role may not create in the schema pgmq, or something of "
        "another pgmq is in it\nDo it as the owner of the schemas pgmq and pgtasks; and look for "
        "types, for the table __pgmq_migrations, and for queues without the columns headers and "
        "last_read_at."
    )


def script() -> str:
    """Return one SQL script that installs the schema on a database that has none of it."""
    steps = migrations()
    parts = ["BEGIN;", f"{_ONLY_BUILT_IN};", f"SELECT pg_advisory_xact_lock({_LOCK});"]
    parts.append(_REFUSE_OLD_PGMQ)
    for step in steps:
        parts += [
            f"\n-- {step.version:04} {step.name}",
            step.text,
            _recorded(step),
        ]
    return "\n".join([*parts, "\nCOMMIT;\n"])


def _recorded(step: Migration) -> str:
    text = statement("record_migration").rstrip()
    return text.replace("$1", str(step.version)).replace("$2", f"'{step.name}'") + ";"


async def _missing(connection: Connection) -> list[Migration]:
    facts = await Store(connection).server_facts()
    try:
        applied = await Store(connection).applied_migrations() if facts["is_installed"] else []
    except asyncpg.InsufficientPrivilegeError as error:
        raise SchemaError(
            f"the role {facts['role']!r} may not use the pgtasks schema: {error}\n"
            f"As its owner: GRANT USAGE ON SCHEMA pgtasks, pgmq TO {facts['role']}; and the "
            "rights on their tables that the role needs, as `pgtasks db roles` does."
        ) from error
    known = migrations()
    if newer := [version for version in applied if version > known[-1].version]:
        raise SchemaError(
            f"the pgtasks schema of this database is at version {newer[-1]}; this pgtasks knows "
            f"up to {known[-1].version}\nUpgrade the pgtasks package of this process."
        )
    return [step for step in known if step.version not in applied]


async def _check_server(connection: Connection) -> None:
    facts = await Store(connection).server_facts()
    if facts["version_number"] < OLDEST_SERVER:
        raise SchemaError(
            f"this server is PostgreSQL {facts['version']}; pgtasks needs 14 or newer"
        )
    if foreign := await ForeignPgmq.find(Store(connection)):
        foreign.check()
