"""The settings of `[worker.health]`: what they take, and what is said of what they do not."""

import ipaddress
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from project import Project

from pgtasks.config import HealthConfig
from pgtasks.errors import ConfigError
from pgtasks.setting_kind import Listen


@pytest.mark.parametrize(
    ("written", "listen"),
    [
        (9464, "127.0.0.1:9464"),
        ("9464", "127.0.0.1:9464"),
        (" 9464 ", "127.0.0.1:9464"),
        ("localhost:9464", "127.0.0.1:9464"),
        ("127.0.0.2:9464", "127.0.0.2:9464"),
        ("0.0.0.0:80", "0.0.0.0:80"),
        ("[::1]:9464", "[::1]:9464"),
        ("[0:0::1]:9464", "[::1]:9464"),
        ("[::]:65535", "[::]:65535"),
        ("none", None),
        (None, None),
    ],
)
def test_an_address_to_listen_on(written: object, listen: str | None):
    assert HealthConfig(listen=written).listen == listen  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("written", "says"),
    [
        ("::1:9464", 'did you mean "[::1]:9464"?'),
        (":9464", 'did you mean "127.0.0.1:9464"?'),
        ("*:9464", 'did you mean "0.0.0.0:9464"?'),
        ("http://10.0.0.1:9464/livez", 'did you mean "10.0.0.1:9464"?'),
        ("HTTP://LOCALHOST:9464", 'did you mean "127.0.0.1:9464"?'),
        ("[127.0.0.1]:9464", "write e.g."),
        ("worker.example:9464", "write e.g."),
        ("127.0.0.1", "write e.g."),
        ("127.0.0.1:", "write e.g."),
        ("127.0.0.1:-1", "write e.g."),
        ("127.0.0.1:٩٤٦٤", "write e.g."),
        ("127.0.0.1:9464\r\nX: y", "write e.g."),
        ("", "write e.g."),
        ("0", "write e.g."),
        ("65536", "write e.g."),
        ("127.0.0.1:99999", "write e.g."),
        (0, "0 is not an address and a port"),
        (65_536, "65536 is not an address and a port"),
        (-1, "-1 is not an address and a port"),
        pytest.param(10**6000, "this number is not an address and a port", id="huge"),
        (94.64, "write e.g."),
        (True, "true is not an address and a port"),
        (["127.0.0.1", 9464], "a list is not an address and a port"),
    ],
)
def test_what_is_no_address_is_refused(written: object, says: str):
    with pytest.raises(ConfigError) as caught:
        HealthConfig(listen=written)  # type: ignore[arg-type]
    assert str(caught.value).startswith("listen: ")
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


@given(st.ip_addresses(), st.integers(1, 65_535))
def test_every_address_is_read_and_split_as_it_is_written(
    address: ipaddress.IPv4Address | ipaddress.IPv6Address, port: int
):
    host = f"[{address}]" if address.version == 6 else str(address)
    read = Listen().read(f"{host}:{port}")
    assert Listen().read(read) == read
    split, number = Listen.split(read)
    assert (ipaddress.ip_address(split), number) == (address, port)


@given(st.text())
def test_any_text_is_read_or_refused(text: str):
    try:
        read = Listen().read(text)
    except ConfigError:
        return
    assert Listen().read(read) == read
    assert 0 < Listen.split(read)[1] < 65_536


@pytest.mark.parametrize("key", ["stale_after", "start_within"])
def test_too_short_a_time_is_refused(key: str):
    """Every beat that a busy machine delays would be an alarm."""
    values: dict[str, Any] = {key: "4s"}
    with pytest.raises(ConfigError, match='"4s" is too short; write at least "5s"'):
        HealthConfig(**values)


def test_what_is_wrong_in_a_file_is_said_with_its_line(tmp_path: Path):
    project = Project(tmp_path)
    project.write(
        "pgtasks.toml", '[worker.health]\nlisten = "*:94"\nstale-after = "1s"\nstale_within = 3\n'
    )
    listen, stale, unknown = project.problems()
    assert listen.startswith('pgtasks.toml:2: worker.health.listen: "*:94" is not an address')
    assert stale.startswith('pgtasks.toml:3: worker.health.stale-after: "1s" is too short')
    assert unknown.startswith("pgtasks.toml:4: worker.health.stale_within: unknown key; did you")


def test_a_variable_and_the_defaults(tmp_path: Path):
    health = Project(tmp_path).load(PGTASKS__WORKER__HEALTH__LISTEN="9464").config.worker.health
    assert health == HealthConfig("127.0.0.1:9464", timedelta(minutes=1), timedelta(minutes=5))
