"""A leased row: its envelope, what is remembered of its past runs, and new ids."""

import copy
import json
import pickle
import time
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgtasks.errors import DecodeError
from pgtasks.message import (
    MAX_ERRORS,
    NEW,
    Handle,
    Message,
    State,
    new_id,
    read_envelope,
    read_state,
    write_envelope,
    write_envelopes,
    write_state,
)

ID = UUID("01890000-0000-7000-8000-000000000001")
AT = datetime(2027, 1, 1, 12, 30, 15, 123457, tzinfo=UTC)
DEEP = "[" * 6000 + "]" * 6000

counts = st.integers(0, 2**31 - 1)
plain = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)
errors = st.lists(st.dictionaries(st.text(), plain, max_size=3), max_size=MAX_ERRORS)


def message(*, delivery: int = 1, headers: str | None = None) -> Message:
    return Message("emails", 7, delivery, AT.timestamp(), "{}", headers, 0.0)


# The envelope


@given(st.text(min_size=1).filter(lambda name: name.isprintable()), plain)
def test_an_envelope_is_read_as_it_was_written(task: str, args: Any):
    read = read_envelope(write_envelope(ID, task, json.dumps(args).encode()))
    assert (read.metadata.id, read.metadata.worker_name) == (ID, task)
    assert json.loads(bytes(read.args)) == args


def test_envelopes_of_many_are_those_of_each():
    ids, bodies = write_envelopes("app.send", [b'{"n":%d}' % n for n in range(100)])
    assert len(set(ids)) == 100
    for number, (made, body) in enumerate(zip(ids, bodies, strict=True)):
        id_ = UUID(made)
        assert body == write_envelope(id_, "app.send", b'{"n":%d}' % number)
        assert (str(id_), id_.version) == (made, 7)


def test_a_handle_is_a_value():
    handle = Handle(str(ID), "emails", 7)
    assert (handle.id, handle.queue, handle.message_id) == (ID, "emails", 7)
    assert pickle.loads(pickle.dumps(handle)) == copy.deepcopy(handle) == handle
    assert len({handle, Handle(str(ID), "emails", 7)}) == 1
    with pytest.raises(AttributeError):
        handle.queue = "other"  # type: ignore[misc]


def test_an_envelope_has_the_form_that_other_clients_know():
    stored = json.loads(write_envelope(ID, "app.send", b'{"user_id":42}'))
    assert stored == {
        "metadata": {"id": str(ID), "worker_name": "app.send"},
        "args": {"user_id": 42},
    }


def test_a_foreign_envelope_may_leave_out_the_arguments_and_carry_more():
    text = json.dumps({"metadata": {"id": 5, "worker_name": "x", "more": 1}, "other": [1]})
    read = read_envelope(text)
    assert (read.metadata.id, bytes(read.args)) == (5, b"null")


@pytest.mark.parametrize(
    "body",
    [
        None, "", "null", "[]", '"x"', "1", "true", "{}", "nonsense", '{"metadata":null}',
        '{"metadata":{}}', '{"metadata":{"worker_name":"x"}}', '{"metadata":{"id":"x"}}',
        '{"metadata":{"id":"not-an-id","worker_name":"x"}}',
        f'{{"metadata":{{"id":"{ID}","worker_name":5}}}}',
        f'{{"metadata":{{"id":"{ID}","worker_name":null}}}}',
        '{"metadata":{"id":1.5,"worker_name":"x"}}',
        f'{{"metadata":{{"id":{DEEP},"worker_name":"x"}}}}',
        f'{{"metadata":{{"id":"{ID}","worker_name":"x"}},"args":{DEEP}',
        DEEP, "1e400", "1e100000", '{"metadata":' * 6000,
    ],
    ids=lambda body: repr(body)[:40],
)  # fmt: skip
def test_what_is_no_envelope_is_refused(body: str | None):
    with pytest.raises(DecodeError):
        read_envelope(body)


# What is remembered of past runs


@given(counts, counts, counts, counts, counts, errors, st.dictionaries(st.text(), plain))
def test_a_state_is_read_as_it_was_written(  # noqa: PLR0917 - given by name
    failures: int,
    snoozes: int,
    releases: int,
    unknown: int,
    crashes: int,
    kept: list[dict[str, Any]],
    options: dict[str, Any],
):
    state = State(failures, snoozes, releases, unknown, crashes, tuple(kept), options)
    assert read_state(f'{{"pgtasks":{write_state(state.as_dict())}}}') == state


def test_only_what_is_not_at_its_default_is_stored():
    assert NEW.as_dict() == {}
    assert State(failures=2).as_dict(outcome="done") == {"failures": 2, "outcome": "done"}


def test_the_oldest_error_goes_when_there_are_too_many():
    state = NEW
    for number in range(MAX_ERRORS + 3):
        state = state.with_error({"n": number})
    assert [error["n"] for error in state.errors] == list(range(3, MAX_ERRORS + 3))


@pytest.mark.parametrize(
    "headers",
    [
        "null", "[]", '"x"', "5", "{}", '{"pgtasks":null}', '{"pgtasks":[]}', '{"pgtasks":"x"}',
        '{"pgtasks":{"failures":"3"}}', '{"pgtasks":{"failures":-1}}', "",
        '{"pgtasks":{"failures":true}}', '{"pgtasks":{"failures":1.0}}',
        '{"pgtasks":{"failures":2147483648}}', '{"pgtasks":{"failures":1e400}}',
        '{"pgtasks":{"errors":5,"options":[]}}', '{"pgtasks":{"errors":[1,null,"x",[]]}}',
        f'{{"pgtasks":{DEEP}}}', f'{{"pgtasks":{{"errors":[{DEEP}]}}}}', '{"other":1}', "nonsense",
    ],
    ids=lambda headers: headers[:40],
)  # fmt: skip
def test_headers_that_are_not_ours_count_as_absent(headers: str):
    assert read_state(headers) == NEW
    assert message(headers=headers).state == NEW


def test_what_is_ours_is_read_beside_what_is_not():
    headers = '{"x-pgmq-group":"g","pgtasks":{"failures":3,"snoozes":"many","errors":[{"a":1},2]}}'
    assert read_state(headers) == State(failures=3, errors=({"a": 1},))


@given(st.dictionaries(st.text(), plain))
def test_what_a_newer_pgtasks_keeps_stays_as_it_is(more: dict[str, Any]):
    rest = {f"later-{name}": value for name, value in more.items()}
    ours = {"failures": 1, "outcome": "failed", "worker": "w"}
    state = read_state(json.dumps({"pgtasks": {**rest, **ours}}))
    written = json.loads(write_state(attrs.evolve(state, failures=2).as_dict()))
    assert written == {**rest, "failures": 2}


def test_it_stays_even_if_we_could_not_write_it():
    """Numbers that the encoder refuses, and a depth near the end of the stack."""
    rest = f'{{"number":{10**50},"deep":{"[" * 500}{"]" * 500}}}'
    state = read_state(f'{{"pgtasks":{{"later":{rest}}}}}')
    assert write_state(state.as_dict()) == f'{{"later":{rest}}}'


@pytest.mark.parametrize(
    ("version", "is_readable"),
    [(None, True), (0, True), (1, True), (2, False), (2**31 - 1, False), ("2", True), (-2, True)],
)
def test_a_message_of_a_newer_version_is_not_ours_to_run(version: object, *, is_readable: bool):
    state = read_state(json.dumps({"pgtasks": {"version": version}}))
    assert state.is_readable == is_readable
    assert write_state(state.as_dict()) == (
        "{}" if is_readable and version != 1 else write_state({"version": version})
    )


def test_no_more_errors_are_read_than_are_kept():
    headers = json.dumps({"pgtasks": {"errors": [{"n": n} for n in range(100)]}})
    assert [error["n"] for error in read_state(headers).errors] == list(range(95, 100))


# Deliveries and attempts


def test_deliveries_that_never_ended_are_unexplained():
    state = {"failures": 1, "snoozes": 2, "releases": 3, "unknown": 4}
    headers = json.dumps({"pgtasks": state})
    assert message(delivery=11, headers=headers).unexplained == 0
    assert message(delivery=13, headers=headers).unexplained == 2


@given(st.integers(1, 2**31 - 1), counts)
def test_unexplained_deliveries_are_never_negative(delivery: int, releases: int):
    headers = json.dumps({"pgtasks": {"releases": releases}})
    found = message(delivery=delivery, headers=headers).unexplained
    assert found == max(0, delivery - 1 - releases)


def test_a_message_knows_when_it_was_stored():
    assert message().enqueued_at == AT


def test_a_message_is_never_changed():
    with pytest.raises(AttributeError):
        message().delivery = 2  # type: ignore[misc]


# Ids


def test_an_id_is_a_uuid_of_version_7_that_tells_its_millisecond():
    before = time.time_ns() // 1_000_000
    made = new_id()
    assert (made.version, made.variant) == (7, "specified in RFC 4122")
    assert before <= made.int >> 80 <= time.time_ns() // 1_000_000


def test_ids_differ_and_are_ordered_by_time():
    made = [new_id() for _ in range(5000)]
    assert len(set(made)) == 5000
    stamps = [one.int >> 80 for one in made]
    assert stamps == sorted(stamps)
    assert len({one.int & 0xFFF << 64 for one in made}) > 1000  # 12 random bits beside the version
    assert len({one.int & (1 << 62) - 1 for one in made}) == 5000
