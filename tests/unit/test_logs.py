"""Logs: one line an event, nothing that breaks it, no secrets."""

import io
import json
import logging
import re
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgtasks.errors import ConfigError
from pgtasks.logs import JsonFormatter, TextFormatter, configure
from pgtasks.safe_text import one_line

LOG = logging.getLogger("pgtasks.worker")


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        """Say so."""
        return True


class Unprintable:
    """A value whose text cannot be had."""

    def __str__(self) -> str:
        raise RuntimeError("no")

    __repr__ = __str__


@pytest.fixture(autouse=True)
def _logger_as_before() -> Iterator[None]:
    logger = logging.getLogger("pgtasks")
    before = (logger.handlers[:], logger.level, logger.propagate)
    yield
    logger.handlers, logger.level, logger.propagate = before


@pytest.fixture
def stream() -> io.StringIO:
    return io.StringIO()


def _caught(error: Exception) -> Exception:
    with pytest.raises(type(error)) as caught:
        raise error
    return caught.value


def _record(value: object) -> logging.LogRecord:
    values = {"msg": "event", "name": "pgtasks", "levelname": "INFO", "fields": {"value": value}}
    return logging.makeLogRecord(values)


# Text


def test_text_is_one_line_with_its_fields(stream: io.StringIO) -> None:
    configure("info", "text", stream)
    LOG.info("task done", extra={"fields": {"task": "hello", "ms": 1.5, "note": "two words"}})
    assert re.fullmatch(
        r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3} INFO     worker     task done"
        r'  task=hello ms=1\.5 note="two words"\n',
        stream.getvalue(),
    )


def test_without_fields_nothing_trails(stream: io.StringIO) -> None:
    configure("info", "text", stream)
    LOG.info("started with %s", "x")
    assert stream.getvalue().endswith(" started with x\n")


def test_an_exception_is_indented_below(stream: io.StringIO) -> None:
    configure("info", "text", stream)
    error = _caught(ValueError("first\nsecond"))
    LOG.error("task failed", exc_info=error, extra={"fields": {"task": "hello"}})
    head, *below = stream.getvalue().splitlines()
    assert head.endswith("task failed  task=hello")
    assert below[0] == "    Traceback (most recent call last):"
    assert below[-2:] == ["    ValueError: first", "    second"]
    assert all(line.startswith("    ") for line in below)


def test_no_exception_no_traceback(stream: io.StringIO) -> None:
    configure("info", "text", stream)
    LOG.error("odd", exc_info=True)  # noqa: LOG014 - the point
    assert stream.getvalue().count("\n") == 1


def test_a_stack_is_indented_too(stream: io.StringIO) -> None:
    configure("info", "text", stream)
    LOG.warning("stuck", stack_info=True)
    assert "\n    Stack (most recent call last):\n" in stream.getvalue()


@pytest.mark.parametrize("format_", ["text", "json"])
def test_no_message_breaks_its_line(stream: io.StringIO, format_: Any) -> None:
    evil = "a\nINFO forged\r\x1b[31mred\x00\x85\u2028\u202e\ud800"
    configure("info", format_, stream)
    LOG.info(evil, extra={"fields": {evil: evil, "list": [evil]}})
    text = stream.getvalue()
    assert text.count("\n") == 1
    assert len(text.splitlines()) == 1
    assert not set("\r\x1b\x00\x85\u2028\u202e\ud800") & set(text)


@given(st.text() | st.text(st.characters(categories=["Cc", "Cf", "Cs", "Zl", "Zp"])))
def test_one_line_is_one_line(text: str) -> None:
    line = one_line(text)
    assert len(line.splitlines()) <= 1
    assert "\x1b" not in line
    line.encode("utf-8")


@pytest.mark.parametrize(("variables", "coloured"), [({}, True), ({"NO_COLOR": "1"}, False)])
def test_colours_on_a_terminal_only(
    monkeypatch: pytest.MonkeyPatch,
    stream: io.StringIO,
    variables: dict[str, str],
    coloured: bool,
) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    terminal = Terminal()
    for where in (terminal, stream):
        configure("info", "auto", where)
        LOG.info("hello", extra={"fields": {"a": 1}})
    assert ("\x1b[" in terminal.getvalue()) is coloured
    assert "\x1b[" not in stream.getvalue()


def test_a_stream_that_cannot_hold_a_character() -> None:
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding="ascii")
    configure("info", "text", stream)
    LOG.info("grüße", extra={"fields": {"name": "ü"}})
    stream.flush()
    assert b"gr\\xfc\\xdfe  name=\\xfc" in raw.getvalue()


# JSON


def test_json_is_one_object_with_its_fields(stream: io.StringIO) -> None:
    configure("debug", "json", stream)
    LOG.debug("task done", extra={"fields": {"task": "hello", "ms": 1.5, "tags": ("a", None)}})
    line = json.loads(stream.getvalue())
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", line.pop("ts"))
    assert line == {
        "level": "debug",
        "logger": "pgtasks.worker",
        "event": "task done",
        "task": "hello",
        "ms": 1.5,
        "tags": ["a", None],
    }


def test_json_of_an_exception(stream: io.StringIO) -> None:
    configure("info", "json", stream)
    LOG.error("task failed", exc_info=_caught(ConfigError("bad")))
    error = json.loads(stream.getvalue())["error"]
    assert (error["type"], error["message"]) == ("pgtasks.errors.ConfigError", "bad")
    assert error["traceback"].endswith("pgtasks.errors.ConfigError: bad")


def test_a_field_never_replaces_what_every_line_has(stream: io.StringIO) -> None:
    configure("info", "json", stream)
    LOG.info("real", extra={"fields": {"event": "forged", "level": "x"}})
    line = json.loads(stream.getvalue())
    assert (line["event"], line["level"], line["event_"]) == ("real", "info", "forged")


@pytest.mark.parametrize("formatter", [JsonFormatter(), TextFormatter()])
@pytest.mark.parametrize(
    "value",
    [
        float("nan"),
        float("inf"),
        10**5000,
        {1: {2: {3}}},
        Unprintable(),
        {Unprintable(): Unprintable()},
        object(),
        b"\x00",
        "x" * 1_000_000,
        list(range(100_000)),
        [[[[[[[[[[1]]]]]]]]]],
    ],
    ids=lambda value: type(value).__name__,
)
def test_any_field_can_be_logged(formatter: logging.Formatter, value: object) -> None:
    """No value makes a line fail, endless, or something else than JSON."""
    record = _record(value)
    text = formatter.format(record)
    assert len(text) < 10_000
    if isinstance(formatter, JsonFormatter):
        json.loads(text, parse_constant=pytest.fail)


def test_a_value_that_holds_itself() -> None:
    value: list[object] = []
    value.append(value)
    record = _record(value)
    assert json.loads(JsonFormatter().format(record))["value"] == [[[[[["..."]]]]]]


def test_fields_that_are_no_mapping(stream: io.StringIO) -> None:
    configure("info", "text", stream)
    LOG.info("event", extra={"fields": "odd"})
    assert stream.getvalue().endswith("event  fields=odd\n")


# Secrets


@pytest.mark.parametrize("format_", ["text", "json"])
def test_secrets_are_masked(stream: io.StringIO, format_: Any) -> None:
    configure("info", format_, stream)
    url = "postgresql://me:s3cret@db/app"
    fields = {
        "password": "s3cret",
        "db_Passwd": "s3cret",
        "auth-token": "s3cret",
        "client_secret": ["s3cret"],
        "Authorization": "s3cret",
        "API_KEY": "s3cret",
        "headers": {"x": [{"Authorization": "s3cret"}]},
        "url": url,
    }
    error = _caught(ValueError(f"no connection to {url}"))
    LOG.error("cannot reach %s", url, exc_info=error, extra={"fields": fields})
    assert "s3cret" not in stream.getvalue()
    assert stream.getvalue().count("me:***@db/app") >= 3


def test_a_password_is_not_cut_from_its_mark() -> None:
    """Text is masked before it is shortened."""
    password = "s3cret" * 2000
    assert "s3cret" not in one_line(f"postgresql://me:{password}@db/app")


# Configuring


def test_configuring_again_replaces(stream: io.StringIO) -> None:
    before = io.StringIO()
    configure("debug", "text", before)
    configure("warning", "json", stream)
    LOG.info("no")
    LOG.warning("yes")
    assert json.loads(stream.getvalue())["event"] == "yes"
    assert before.getvalue() == ""


def test_an_event_is_not_shown_twice_by_handlers_of_the_root(
    stream: io.StringIO, caplog: pytest.LogCaptureFixture
) -> None:
    configure("info", "text", stream)
    LOG.warning("hello")
    assert caplog.records == []


def test_handlers_of_others_stay(stream: io.StringIO) -> None:
    mine = logging.NullHandler()
    logging.getLogger("pgtasks").addHandler(mine)
    configure("info", "text", stream)
    assert mine in logging.getLogger("pgtasks").handlers


def test_stderr_by_default(capsys: pytest.CaptureFixture[str]) -> None:
    configure("info")
    LOG.info("hello")
    assert "hello" in capsys.readouterr().err


@pytest.mark.parametrize(("level", "format_"), [("loud", "text"), ("info", "xml")])
def test_refuses_what_it_does_not_know(level: str, format_: Any) -> None:
    with pytest.raises(ConfigError, match="is not a log"):
        configure(level, format_)
