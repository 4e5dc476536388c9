"""Many messages of one call: copied where the role may, else inserted, and alike in the table."""

import asyncio
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import pytest
from eventually import eventually_async
from postgres.rows import Rows, seconds

from pgtasks import Client, DatabaseError, DatabaseUnreachable, Registry, task
from pgtasks.bulk import SLICE
from pgtasks.store import BEGINNING, Store

Q = "default"
MANY = 2 * SLICE + 1
registry = Registry()


@task(name="app.say", registry=registry)
async def say(text: str) -> None: ...


@pytest.fixture
def copied(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many messages each COPY has taken."""
    found, copy = list[int](), Store.copy

    async def noted(self: Store, *arguments: Any) -> int:
        taken = await copy(self, *arguments)
        found.append(taken)
        return taken

    monkeypatch.setattr(Store, "copy", noted)
    return found


async def said(rows: Rows) -> list[str]:
    return [json.loads(row["message"])["args"]["text"] for row in await rows.all()]


TEXTS = ["", "é🙂שלום", 'a"b\\c', "\n\t\\N\\.", "\x7f", "x" * 20_000]


async def test_what_is_copied_is_as_if_it_were_inserted(
    client: Client, rows: Rows, copied: list[int]
):
    calls = [(TEXTS[n % len(TEXTS)],) for n in range(MANY)]
    many = await say.options(retries=7).defer_many(calls)
    one = await say.options(retries=7).defer(TEXTS[1])
    found = await rows.all()
    assert (sum(copied), len(found)) == (MANY, MANY + 1)
    assert [row["msg_id"] for row in found] == [each.message_id for each in [*many, one]]
    assert await said(rows) == [*(text for (text,) in calls), TEXTS[1]]
    *others, last = found
    assert {row["headers"] for row in others} == {last["headers"]}
    assert last["headers"] is not None
    for row, handle in zip(found, [*many, one], strict=True):
        assert json.loads(row["message"])["metadata"]["id"] == str(handle.id)
        assert (row["read_ct"], row["last_read_at"]) == (0, None)
    assert json.loads(others[1]["message"]).keys() == json.loads(last["message"]).keys()


async def test_copied_messages_are_due_one_after_the_other(
    client: Client, rows: Rows, copied: list[int]
):
    """A claim that begins where the last one ended must not meet thousands of the same moment."""
    before = await rows.connection.fetchval("SELECT clock_timestamp()")
    await say.defer_many([("",)] * MANY)
    after = await rows.connection.fetchval("SELECT clock_timestamp()")
    await say.options(delay=3600).defer_many([("",)] * MANY)
    found = await rows.fetch("SELECT vt FROM pgmq.q_default ORDER BY msg_id")
    due = [row["vt"] for row in found]
    assert sum(copied) == 2 * MANY
    assert due == sorted(set(due))
    assert before - timedelta(microseconds=MANY) <= due[0] <= due[MANY - 1] <= after
    assert timedelta(minutes=59) < due[MANY] - after < timedelta(minutes=61)
    claimed = await Store(rows.connection).claim(Q, MANY, seconds(60), BEGINNING)
    assert [row["msg_id"] for row in claimed] == [row["msg_id"] for row in await rows.all()][:MANY]


async def test_copied_messages_of_one_moment_are_due_at_it(
    client: Client, rows: Rows, copied: list[int]
):
    moment = datetime(2300, 2, 3, 4, 5, 6, 789, UTC)
    await say.options(at=moment).defer_many([("",)] * MANY)
    assert sum(copied) == MANY
    assert {row["vt"] for row in await rows.fetch("SELECT vt FROM pgmq.q_default")} == {moment}


async def test_codecs_of_the_users_connection_have_no_say(
    client: Client, rows: Rows, database_url: str, copied: list[int]
):
    own = await asyncpg.connect(database_url)
    for name in ("jsonb", "json"):
        await own.set_type_codec(name, schema="pg_catalog", encoder=json.dumps, decoder=json.loads)
    async with own.transaction():
        await say.options(connection=own).defer_many([(str(n),) for n in range(MANY)])
    assert sum(copied) == MANY
    assert await said(rows) == [str(n) for n in range(MANY)]
    await own.close()


TABLE = "GRANT INSERT, SELECT ON pgmq.q_default TO {role};"
SEQUENCE = "GRANT USAGE ON SEQUENCE pgmq.q_default_msg_id_seq TO {role};"
LIMITS = {
    "none": TABLE + SEQUENCE,
    "rights on columns": TABLE.replace("INSERT", "INSERT (vt, message, headers)") + SEQUENCE,
    "no right to the sequence": TABLE,
    "row security": TABLE
    + SEQUENCE
    + "ALTER TABLE pgmq.q_default ENABLE ROW LEVEL SECURITY;"
    + "CREATE POLICY mine ON pgmq.q_default TO {role} USING (true)",
    "numbers of a sequence of somebody else's": TABLE
    + "ALTER TABLE pgmq.q_default ALTER msg_id DROP IDENTITY;"
    + "CREATE SEQUENCE pgmq.other; GRANT USAGE ON SEQUENCE pgmq.other TO {role};"
    + "ALTER TABLE pgmq.q_default ALTER msg_id SET DEFAULT nextval('pgmq.other')",
}


@pytest.mark.parametrize("limit", LIMITS)
async def test_who_may_not_copy_inserts(client: Client, rows: Rows, copied: list[int], limit: str):
    role = f"limited_{rows.connection.get_server_pid()}"
    await rows.connection.execute(
        f"CREATE ROLE {role}; GRANT USAGE ON SCHEMA pgmq, pgtasks TO {role};"
        f"GRANT SELECT ON pgmq.meta TO {role};" + LIMITS[limit].replace("{role}", role)
    )
    try:
        async with client.pool.acquire() as own, own.transaction():
            await own.execute(f"SET LOCAL ROLE {role}")
            await say.options(connection=own).defer_many([(str(n),) for n in range(MANY)])
        assert sum(copied) == (MANY if limit == "none" else 0)
        assert await said(rows) == [str(n) for n in range(MANY)]
    finally:
        await rows.connection.execute(f"DROP OWNED BY {role} CASCADE; DROP ROLE {role}")


async def test_what_a_trigger_keeps_back_was_not_stored(client: Client, rows: Rows):
    await rows.connection.execute(
        "CREATE FUNCTION pgtasks.odd() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN RETURN CASE WHEN NEW.msg_id % 2 = 0 THEN NEW END; END $$;"
        "CREATE TRIGGER odd BEFORE INSERT ON pgmq.q_default "
        "FOR EACH ROW EXECUTE FUNCTION pgtasks.odd()"
    )
    with pytest.raises(DatabaseError, match=r"250 of 500 .* default.* trigger .*\n?.*[Nn]othing"):
        await say.defer_many([(str(n),) for n in range(MANY)])
    assert await rows.all() == []


async def test_a_copy_that_is_given_up_leaves_the_users_connection_in_order(
    client: Client, rows: Rows, database_url: str
):
    own = await asyncpg.connect(database_url)
    async with rows.connection.transaction():
        await rows.connection.execute("LOCK TABLE pgmq.q_default IN EXCLUSIVE MODE")
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2), own.transaction():
                await say.options(connection=own).defer_many([("lost",)] * 20_000)
    async with own.transaction():
        await say.options(connection=own).defer_many([("kept",)] * MANY)
    assert set(await said(rows)) == {"kept"}
    await own.close()


async def test_a_copy_whose_connection_ends_has_stored_nothing(
    client: Client, rows: Rows, database_url: str, copied: list[int]
):
    other = await asyncpg.connect(database_url)
    async with rows.connection.transaction():
        await rows.connection.execute("LOCK TABLE pgmq.q_default IN EXCLUSIVE MODE")
        copying = asyncio.ensure_future(say.defer_many([("lost",)] * MANY))

        async def ended() -> None:
            assert await other.fetch(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE datname = current_database() AND query LIKE 'COPY %'"
            )

        await eventually_async(ended)
        with pytest.raises(DatabaseUnreachable):
            await copying
    await other.close()
    assert copied == []
    assert await rows.all() == []
    await say.defer_many([("kept",)] * MANY)
    assert len(await rows.all()) == MANY
