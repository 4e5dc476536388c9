"""What of the server endangers queues: the checks of `pgtasks doctor` that look at it."""

import json
from collections.abc import Sequence
from datetime import timedelta
from typing import Any, Final

from pgtasks.cli.finding import Finding, Patient
from pgtasks.cli.output import span
from pgtasks.duration import format_duration

OLD_SNAPSHOT_SECONDS: Final = 300.0
"""A snapshot that has been open for so long makes claims walk over what was settled since."""
OLD_SNAPSHOT_TRANSACTIONS: Final = 1_000_000
"""The same for holders whose age in seconds nobody knows."""
DEAD_ROWS: Final = 100_000
NOTIFICATIONS: Final = 0.1
"""How full the queue of notifications may be; full, every commit that notifies fails."""
FREE_CONNECTIONS: Final = 5
WRAPAROUND: Final = 1_500_000_000
"""Transactions; at 2.1 thousand million the server takes no more writes."""
SHORTEST: Final = {
    "statement_timeout": 5_000,
    "transaction_timeout": 5_000,
    "lock_timeout": 1_000,
    "idle_in_transaction_session_timeout": 5_000,
    "idle_session_timeout": 30_000,
}
"""Milliseconds that a worker needs: its own bounds are shorter, or it reconnects all the time."""


async def pooler(at: Patient) -> Sequence[Finding]:
    """A pooler in transaction mode has to be known: it forgets LISTEN and settings."""
    limits = await at.session.store.server_limits()
    introduced = at.session.connection.get_server_pid()
    if limits["backend"] == introduced:
        return [Finding("pooler", "ok", "none between us and the server")]
    known = at.session.loaded.config.database.pgbouncer
    if known is not False:
        found = "as database.pgbouncer says" if known else "workers will find it, and poll"
        return [Finding("pooler", "ok", f"a pooler, {found}")]
    text = "another process answers than the one that was connected to: there is a pooler between"
    step = "in transaction mode leave database.pgbouncer out; in session mode all is well"
    return [Finding("pooler", "warn", text, step)]


async def timeouts(at: Patient) -> Sequence[Finding]:
    """Time-outs set on the role or the database may end what a worker needs."""
    limits = await at.session.store.server_limits()
    held: dict[str, tuple[int, str | None]] = json.loads(limits["timeouts"])
    short = [name for name in SHORTEST if name in held and 0 < held[name][0] < SHORTEST[name]]
    none = [Finding("timeouts", "ok", "none of this role is shorter than a worker needs")]
    return [_of_timeout(name, *held[name]) for name in short] or none


def _of_timeout(name: str, value: int, change: str | None) -> Finding:
    least = format_duration(timedelta(milliseconds=SHORTEST[name]))
    text = f"{name} is {format_duration(timedelta(milliseconds=value))} for this role"
    step = f"{change} SET {name} = 0, or at least {least}"
    if change is None:
        step = f"take it out of database.url and PGOPTIONS, or make it at least {least}"
    return Finding("timeouts", "warn", text, f"{step}: workers bound their own statements")


async def connections(at: Patient) -> Sequence[Finding]:
    """With no connection left, workers wait, and clients cannot defer."""
    limits = await at.session.store.server_limits()
    used, most = limits["connections"], limits["max_connections"]
    text = f"{used} of {most} connections are used"
    if most - used >= FREE_CONNECTIONS:
        return [Finding("room", "ok", text)]
    step = "raise max_connections, lower database.max-connections, or put a pooler in front"
    return [Finding("room", "warn", text, step)]


async def notifications(at: Patient) -> Sequence[Finding]:
    """A listener that hangs in a transaction fills the queue that all notifications share."""
    usage = (await at.session.store.server_limits())["notification_queue"]
    text = f"the queue of notifications is {usage:.0%} full"
    if usage <= NOTIFICATIONS:
        return [Finding("notify", "ok", text)]
    step = "find who LISTENs and stays in a transaction: `pg_stat_activity`, the oldest xact_start"
    return [Finding("notify", "warn", text, step)]


async def horizon(at: Patient) -> Sequence[Finding]:
    """What keeps dead rows from being removed makes every claim walk over them."""
    holders = await at.session.store.horizon_holders(20)
    old = [holder for holder in holders if _is_old(holder)]
    found = [_of_holder(holder) for holder in old[:3]]
    if not (await at.session.store.server_limits())["sees_all"]:
        text = "this role does not see for how long the transactions of others have been open"
        step = f"GRANT pg_read_all_stats TO {at.facts['role']}, or ask as a superuser"
        found.append(Finding("horizon", "warn", text, step))
    return found or [Finding("horizon", "ok", "no old transaction keeps dead rows alive")]


def _is_old(holder: Any) -> bool:
    if holder["seconds"] is None:
        return bool(holder["transactions"] > OLD_SNAPSHOT_TRANSACTIONS)
    return bool(holder["seconds"] > OLD_SNAPSHOT_SECONDS)


def _of_holder(holder: Any) -> Finding:
    age = f"{holder['transactions']} transactions"
    if holder["seconds"] is not None:
        age = f"{span(holder['seconds'])}, {age}"
    text = f"a {holder['kind']} keeps dead rows alive since {age} ago: {holder['owner']}"
    steps = {
        "transaction": f"`{holder['ending']}` if nobody needs it; it is {holder['doing']}",
        "standby": "end its longest query there, or switch its hot_standby_feedback off",
        "prepared transaction": f"`{holder['ending']}`, or COMMIT PREPARED",
        "replication slot": f"`{holder['ending']}` if nobody reads it; it is {holder['doing']}",
    }
    return Finding("horizon", "warn", text, steps[holder["kind"]])


async def dead_rows(at: Patient) -> Sequence[Finding]:
    """Tables whose dead rows nobody removes grow, and so does every look at them."""
    if not (await at.session.store.server_limits())["autovacuum"]:
        step = "set autovacuum = on: a queue without it only grows"
        return [Finding("vacuum", "warn", "autovacuum is off on this server", step)]
    tables = await at.session.store.table_health()
    worn = [table for table in tables if table["is_never_vacuumed"] or _is_worn(table)]
    none = [Finding("vacuum", "ok", f"dead rows are removed in time in {len(tables)} tables")]
    return [_of_table(table) for table in worn[:10]] or none


def _is_worn(table: Any) -> bool:
    dead, rows = table["dead_rows"] or 0, table["rows"] or 0
    return bool(dead > DEAD_ROWS and dead > rows)


def _of_table(table: Any) -> Finding:
    ago = table["vacuumed_seconds_ago"]
    last = "never" if ago is None else f"{span(ago)} ago"
    text = f"{table['name']}: {table['dead_rows']} dead rows, {table['rows']} live; vacuumed {last}"
    step = f"VACUUM {table['name']}; if they stay, see what holds the horizon"
    if table["is_never_vacuumed"]:
        text += ", and autovacuum is off for it"
        step = f"ALTER TABLE {table['name']} RESET (autovacuum_enabled)"
    return Finding("vacuum", "warn", text, step)


async def rights(at: Patient) -> Sequence[Finding]:
    """Who may claim a message and may not end it runs it again and again."""
    tables = await at.session.store.lacking_rights()
    found = [_of_rights(table, at.facts["role"]) for table in tables if table["lacking"]]
    if found:
        return found[:10]
    text = "what this role may claim it may also end"
    if not tables:
        text = "this role may claim from no queue there is: no worker could be this role"
    return [Finding("rights", "ok", text)]


def _of_rights(table: Any, role: str) -> Finding:
    lacking = ", ".join(table["lacking"])
    text = f"this role may claim messages, and lacks {lacking} on {table['name']}: a worker would "
    text += "run them again and again"
    return Finding("rights", "warn", text, f"GRANT {lacking} ON {table['name']} TO {role}")


async def wraparound(at: Patient) -> Sequence[Finding]:
    """A server that runs out of transaction numbers takes no more writes."""
    limits = await at.session.store.server_limits()
    tables = await at.session.store.table_health()
    found = [_of_age(table["name"], table, f"VACUUM (FREEZE) {table['name']} now")
             for table in tables if _is_near(table)]  # fmt: skip
    if _is_near(limits):
        step = f"`vacuumdb --freeze {limits['database']}` as a superuser now"
        found.append(_of_age("the database", limits, step))
    return found or [Finding("wraparound", "ok", "far from running out of transaction numbers")]


def _is_near(aged: Any) -> bool:
    return bool(max(aged["frozen_age"], aged["multixact_age"]) > WRAPAROUND)


def _of_age(what: str, aged: Any, step: str) -> Finding:
    numbers, age = "transactions", aged["frozen_age"]
    if aged["multixact_age"] > age:
        numbers, age = "multixacts", aged["multixact_age"]
    text = f"{what}: {age:,} {numbers} old; at 2,100,000,000 the server takes no more writes"
    return Finding("wraparound", "fail", text, f"{step}; what holds the horizon has to end first")
