"""The catalog of our own pgmq, against a table written from the description of pgmq 1.13."""

from typing import Any

import pytest

TIME = "timestamp with time zone"
RECORDS = "SETOF pgmq.message_record"
POLL = "max_poll_seconds integer DEFAULT 5, poll_interval_ms integer DEFAULT 100"
BINDINGS = f"TABLE(pattern text, queue_name text, bound_at {TIME}, compiled_regex text)"
SENT = "TABLE(queue_name text, msg_id bigint)"
Q, READ = "queue_name text", "queue_name text, vt integer, qty integer"
KEY = "routing_key text"


def forms(first: str, headers: str) -> list[str]:
    """The six lists of arguments of one that sends."""
    delays = ["", ", delay integer", f", delay {TIME}"]
    return [first + middle + delay for middle in ("", f", headers {headers}") for delay in delays]


PUBLIC: list[tuple[str, str, str]] = [
    # Queues
    ("create", Q, "void"),
    ("create_non_partitioned", Q, "void"),
    ("create_unlogged", Q, "void"),
    (
        "create_partitioned",
        (f"{Q}, partition_interval text DEFAULT '10000'::text, "
        "retention_interval text DEFAULT '100000'::text, premake integer DEFAULT 4"),
        "void",
    ),
    (
        "convert_archive_partitioned",
        ("table_name text, partition_interval text DEFAULT '10000'::text, "
        "retention_interval text DEFAULT '100000'::text, leading_partition integer DEFAULT 10"),
        "void",
    ),
    ("acquire_queue_lock", Q, "void"),
    ("drop_queue", Q, "boolean"),
    ("drop_queue", f"{Q}, partitioned boolean", "boolean"),
    ("purge_queue", Q, "bigint"),
    ("list_queues", "", "SETOF pgmq.queue_record"),
    ("validate_queue_name", Q, "void"),
    ("format_table_name", f"{Q}, prefix text", "text"),
    ("detach_archive", Q, "void"),
    ("metrics", Q, "pgmq.metrics_result"),
    ("metrics_all", "", "SETOF pgmq.metrics_result"),
    # Sending
    *[("send", args, "SETOF bigint") for args in forms(f"{Q}, msg jsonb", "jsonb")],
    *[("send_batch", args, "SETOF bigint") for args in forms(f"{Q}, msgs jsonb[]", "jsonb[]")],
    # Reading
    ("read", f"{READ}, conditional jsonb DEFAULT '{{}}'::jsonb", RECORDS),
    ("read_with_poll", f"{READ}, {POLL}, conditional jsonb DEFAULT '{{}}'::jsonb", RECORDS),
    ("pop", f"{Q}, qty integer DEFAULT 1", RECORDS),
    ("read_grouped", READ, RECORDS),
    ("read_grouped_with_poll", f"{READ}, {POLL}", RECORDS),
    ("read_grouped_rr", READ, RECORDS),
    ("read_grouped_rr_with_poll", f"{READ}, {POLL}", RECORDS),
    ("read_grouped_head", READ, RECORDS),
    ("read_grouped_head_with_poll", f"{READ}, {POLL}", RECORDS),
    ("create_fifo_index", Q, "void"),
    ("create_fifo_indexes_all", "", "void"),
    # Finishing
    ("delete", f"{Q}, msg_id bigint", "boolean"),
    ("delete", f"{Q}, msg_ids bigint[]", "SETOF bigint"),
    ("archive", f"{Q}, msg_id bigint", "boolean"),
    ("archive", f"{Q}, msg_ids bigint[]", "SETOF bigint"),
    ("set_vt", f"{Q}, msg_id bigint, vt integer", RECORDS),
    ("set_vt", f"{Q}, msg_id bigint, vt {TIME}", RECORDS),
    ("set_vt", f"{Q}, msg_ids bigint[], vt integer", RECORDS),
    ("set_vt", f"{Q}, msg_ids bigint[], vt {TIME}", RECORDS),
    # Notifications
    ("enable_notify_insert", f"{Q}, throttle_interval_ms integer DEFAULT 250", "void"),
    ("update_notify_insert", f"{Q}, throttle_interval_ms integer", "void"),
    ("disable_notify_insert", Q, "void"),
    (
        "list_notify_insert_throttles", "",
        f"TABLE(queue_name text, throttle_interval_ms integer, last_notified_at {TIME})",
    ),
    # Topics
    ("bind_topic", f"pattern text, {Q}", "void"),
    ("unbind_topic", f"pattern text, {Q}", "boolean"),
    ("list_topic_bindings", "", BINDINGS),
    ("list_topic_bindings", Q, BINDINGS),
    ("test_routing", KEY, "TABLE(pattern text, queue_name text, compiled_regex text)"),
    ("validate_routing_key", KEY, "boolean"),
    ("validate_topic_pattern", "pattern text", "boolean"),
    ("send_topic", f"{KEY}, msg jsonb", "integer"),
    ("send_topic", f"{KEY}, msg jsonb, delay integer", "integer"),
    ("send_topic", f"{KEY}, msg jsonb, headers jsonb, delay integer", "integer"),
    *[("send_batch_topic", args, SENT) for args in forms(f"{KEY}, msgs jsonb[]", "jsonb[]")],
]  # fmt: skip
INTERNAL: list[tuple[str, str, str]] = [
    ("_validate_batch_params", "msgs jsonb[], headers jsonb[]", "void"),
    ("_send_batch", f"{Q}, msgs jsonb[], headers jsonb[], delay {TIME}", "SETOF bigint"),
    ("_belongs_to_pgmq", "table_name text", "boolean"),
    ("_extension_exists", "extension_name text", "boolean"),
    ("_get_partition_col", "partition_interval text", "text"),
    ("_get_pg_partman_schema", "", "text"),
    ("_get_pg_partman_major_version", "", "integer"),
    ("_ensure_pg_partman_installed", "", "void"),
    ("_create_fifo_index_if_not_exists", Q, "void"),
    ("notify_queue_listeners", "", "trigger"),
]
STABLE = {"list_notify_insert_throttles", "list_topic_bindings", "test_routing"}
IMMUTABLE = {"validate_routing_key", "validate_topic_pattern"}


async def catalog(connection: Any) -> list[Any]:
    return list(
        await connection.fetch(
            "SELECT proname::text AS name, pg_get_function_arguments(oid) AS arguments, "
            "pg_get_function_result(oid) AS result, provolatile::text AS volatility "
            "FROM pg_proc WHERE pronamespace = 'pgmq'::regnamespace"
        )
    )


async def test_every_function_of_pgmq_is_there_as_it_is_called(connection: Any):
    """The names of arguments too: clients name them, and PostgREST finds functions by them."""
    found = {
        (row["name"], row["arguments"], row["result"])
        for row in await catalog(connection)
        if not row["name"].startswith("_pgtasks")
    }
    wanted = set(PUBLIC + INTERNAL)
    assert len(wanted) == len(PUBLIC) + len(INTERNAL) == 76
    assert found - wanted == set()
    assert wanted - found == set()


async def test_volatility(connection: Any):
    found = {(row["name"], row["volatility"]) for row in await catalog(connection)}
    expected = {
        (name, "s" if name in STABLE else "i" if name in IMMUTABLE else "v") for name, _ in found
    }
    assert found == expected


@pytest.mark.parametrize(
    ("kind", "columns"),
    [
        (
            "message_record",
            (f"msg_id bigint, read_ct integer, enqueued_at {TIME}, last_read_at {TIME}, vt {TIME}, "
            "message jsonb, headers jsonb"),
        ),
        (
            "queue_record",
            ("queue_name character varying, is_partitioned boolean, is_unlogged boolean, "
            f"created_at {TIME}"),
        ),
        (
            "metrics_result",
            ("queue_name text, queue_length bigint, newest_msg_age_sec integer, "
            f"oldest_msg_age_sec integer, total_messages bigint, scrape_time {TIME}, "
            "queue_visible_length bigint, default_partition_length bigint"),
        ),
        (
            "notify_insert_throttle",
            ("queue_name character varying, throttle_interval_ms integer, "
            f"last_notified_at {TIME}"),
        ),
        (
            "topic_bindings",
            f"pattern text, queue_name text, bound_at {TIME}, compiled_regex text",
        ),
        ("__pgmq_migrations", f"name text, version text, run_at {TIME}"),
    ],
)  # fmt: skip
async def test_the_columns_of_types_and_tables(connection: Any, kind: str, columns: str):
    found = await connection.fetchval(
        "SELECT string_agg(attname || ' ' || format_type(atttypid, atttypmod), ', ' "
        "ORDER BY attnum) FROM pg_attribute WHERE attnum > 0 "
        "AND attrelid = to_regclass('pgmq.' || $1)",
        kind,
    )
    assert found == columns


async def test_tables_beside_the_queues(connection: Any):
    tables = await connection.fetch(
        "SELECT relname::text AS name, relpersistence::text AS kept FROM pg_class "
        "WHERE relnamespace = 'pgmq'::regnamespace AND relkind = 'r' ORDER BY 1"
    )
    assert [tuple(row) for row in tables] == [
        ("__pgmq_migrations", "p"), ("meta", "p"), ("notify_insert_throttle", "u"),
        ("topic_bindings", "p"),
    ]  # fmt: skip
    constraints = await connection.fetch(
        "SELECT conname::text, pg_get_constraintdef(oid) FROM pg_constraint WHERE contype IN "
        "('u', 'f', 'p') AND conrelid IN ('pgmq.notify_insert_throttle'::regclass, "
        "'pgmq.topic_bindings'::regclass)"
    )
    definitions = [row[1] for row in constraints]
    cascade = "FOREIGN KEY (queue_name) REFERENCES pgmq.meta(queue_name) ON DELETE CASCADE"
    assert definitions.count(cascade) == 2
    assert "UNIQUE (pattern, queue_name)" in definitions
    assert "notify_insert_throttle_queue_name_key" in [row[0] for row in constraints]


async def test_a_client_that_brings_its_own_pgmq_finds_it_there(connection: Any):
    """What the Rust crate asks before it installs: it must not, over ours."""
    assert await connection.fetch("SELECT name, version FROM pgmq.__pgmq_migrations") == [
        ("pgmq.sql", "1.13.0")
    ]
