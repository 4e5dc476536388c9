"""Whatever foreign clients put into a queue, the worker lives and the neighbours run."""

import json
from typing import Any

import pytest
from eventually import eventually_async
from postgres.rows import Rows
from postgres.working import working

from pgtasks import Config, Registry, task
from pgtasks.message import new_id
from pgtasks.store import Store


def envelope(args: str, name: str = "work") -> str:
    return f'{{"metadata":{{"id":"{new_id()}","worker_name":"{name}"}},"args":{args}}}'


DEEP = "[" * 3000 + "]" * 3000

NO_ENVELOPE = [
    None, "null", "[]", '"x"', "{}", "5", "true", "1e400", "[[[]]]", '{"metadata":null}',
    '{"metadata":{}}', '{"metadata":{"id":"x","worker_name":"work"}}',
    '{"metadata":{"id":-1.5,"worker_name":"work"}}', '{"args":[1]}', '{"version":-7}',
    '{"metadata":{"id":"' + str(new_id()) + '","worker_name":["work"]},"args":[1]}', DEEP,
]  # fmt: skip

NO_CALL = [
    '["x"]', '{"n":"x"}', '{"n":null}', "null", "{}", "[]", '{"m":1}', '{"n":1,"m":2}', "[1,2]",
    '"x"', "[1e100000]", "1.5", "[[1]]", '{"n":{"n":1}}', "true", '{"*":[1,2]}',
    '{"*":5}', '{"n":1,"*":[1]}', DEEP, '{"context":5,"n":1}',
]  # fmt: skip

NO_HEADERS = ["NULL", "'null'", "'[]'", "'\"x\"'", "'5'", """'{"pgtasks":null}'""",
              """'{"pgtasks":{"failures":-5,"errors":7,"options":[1]}}'""",
              """'{"pgtasks":{"failures":"x","options":{"timeout":"soon","retries":[]}}}'""",
              """'{"pgtasks":{"options":{"timeout":1e300,"retries":1e400,"on_success":5}}}'""",
              f"""'{{"pgtasks":{{"errors":[{DEEP}]}}}}'""",
              """'{"pgtasks":{"releases":99999999999999999999}}'"""]  # fmt: skip


@pytest.fixture
def ran(registry: Registry) -> list[int]:
    numbers = list[int]()

    @task(name="work", registry=registry)
    async def work(n: int) -> None:
        numbers.append(n)

    return numbers


async def test_what_cannot_become_a_call_is_archived_with_its_reason(
    config: Config, registry: Registry, rows: Rows, ran: list[int], heard: Any
):
    bad = {await rows.put(body): body for body in NO_ENVELOPE}
    bad |= {await rows.put(envelope(args)): args for args in NO_CALL}
    for number in range(5):  # neighbours in the same claim, between and after
        await rows.put(envelope(f"[{number}]"))
    async with working(config, registry):
        await rows.empty()
    archived = await rows.archived()
    assert archived.keys() == bad.keys()
    for message_id, state in archived.items():
        assert state["outcome"] == "undecodable", str(bad[message_id])[:80]
        assert 0 < len(state["reason"]) <= 2000
        assert state["attempts"] == 0
    assert sorted(ran) == list(range(5))
    assert heard.events(40).count("message cannot be decoded, archived") == len(bad)
    assert "running a message failed" not in " ".join(heard.events())


async def test_odd_headers_do_not_matter(
    config: Config, registry: Registry, rows: Rows, ran: list[int]
):
    for number, headers in enumerate(NO_HEADERS):
        await rows.put(envelope(f"[{number}]"), headers=headers)
    async with working(config, registry):
        await rows.empty()
    assert sorted(ran) == list(range(len(NO_HEADERS)))
    assert await rows.archived() == {}


async def test_odd_rows_do_not_matter(
    config: Config, registry: Registry, rows: Rows, ran: list[int]
):
    odd: list[dict[str, str | None]] = [
        {"vt": "'-infinity'"}, {"vt": "'0044-03-15 BC'"}, {"enqueued_at": "'infinity'"},
        {"enqueued_at": "'-infinity'"}, {"enqueued_at": "'4713-01-01 BC'"},
        {"enqueued_at": "'294276-01-01'"}, {"last_read_at": "'infinity'"},
        {"read_ct": "-2147483648"}, {"msg_id": "9223372036854775807"},
        {"msg_id": "-9223372036854775808"},
    ]  # fmt: skip
    for number, columns in enumerate(odd):
        override = " OVERRIDING SYSTEM VALUE" if "msg_id" in columns else ""
        names = ", ".join(["message", *columns, *(["vt"] if "vt" not in columns else [])])
        values = ", ".join(
            ["$1::jsonb", *map(str, columns.values()), *(["now()"] if "vt" not in columns else [])]
        )
        await rows.connection.execute(
            f"INSERT INTO pgmq.q_default ({names}){override} VALUES ({values})",
            envelope(f"[{number}]"),
        )
    never = await rows.put(envelope("[99]"), vt="'infinity'")
    async with working(config, registry):

        async def all_ran() -> None:
            assert sorted(ran) == list(range(len(odd)))

        await eventually_async(all_ran)
    assert [row["msg_id"] for row in await rows.all()] == [never]
    assert await rows.archived() == {}


async def test_a_row_that_was_read_as_often_as_can_be_is_given_up(
    config: Config, registry: Registry, rows: Rows, ran: list[int]
):
    made = await rows.put(envelope("[1]"), read_ct="2147483647")
    async with working(config, registry):
        assert (await rows.outcome(made))["outcome"] == "crashed"
    assert ran == []


async def test_nothing_is_imported_or_called_because_a_message_names_it(
    config: Config, registry: Registry, rows: Rows, ran: list[int]
):
    names = ["os.system", "builtins.exec", "../x", "a.b.c", "__import__", "pgtasks.demo", "",
             "work\\n", "WORK", " work", "w" * 5000]  # fmt: skip
    made = [await rows.put(envelope('["touch /tmp/never"]', name)) for name in names]
    async with working(config, registry):

        async def all_put_back() -> None:
            for message_id in made:
                assert (await rows.state(message_id)).get("unknown", 0) >= 1

        await eventually_async(all_put_back)
    assert (ran, await rows.archived()) == ([], {})


async def test_a_long_message_runs_and_one_that_is_too_long_is_archived(
    config: Config, registry: Registry, rows: Rows
):
    lengths = list[int]()

    @task(name="long", registry=registry)
    async def long(text: str) -> None:
        lengths.append(len(text))

    body = f"jsonb_build_object('metadata', jsonb_build_object('id', '{new_id()}', 'worker_name', "
    insert = (
        f"INSERT INTO pgmq.q_default (vt, message) SELECT now(), {body}'long'), 'args', "
        "jsonb_build_array(repeat('x', $1::int))) RETURNING msg_id"
    )
    await rows.connection.fetchval(insert, 20_000_000)
    too_long = await rows.connection.fetchval(insert, 100_000_000)
    async with working(config, registry):
        state = await rows.outcome(too_long, within_seconds=18)
    assert lengths == [20_000_000]
    assert "longer than" in state["reason"]


async def test_duplicate_keys_are_whatever_postgres_makes_of_them(
    config: Config, registry: Registry, rows: Rows, ran: list[int]
):
    await rows.put(envelope('{"n":1,"n":2}'))
    async with working(config, registry):
        await rows.empty()
    assert ran == [2]


async def test_a_foreign_client_may_send_without_us(
    config: Config, registry: Registry, rows: Rows, ran: list[int]
):
    """In the forms that others use: an object, an array, one value."""
    for args in ('{"n":1}', "[2]", "3", '{"*":[4]}'):
        await rows.put(envelope(args))
    plain = json.dumps({"metadata": {"id": 7, "worker_name": "work"}, "args": {"n": 5}})
    await rows.put(plain, headers="""'{"x-pgmq-group":"a"}'""")
    async with working(config, registry):
        await rows.empty()
    assert sorted(ran) == [1, 2, 3, 4, 5]
    assert await Store(rows.connection).queue_counts("default")
