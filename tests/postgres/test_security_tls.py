"""Where TLS is asked for, there is no connection without it, nor to somebody else."""

import asyncio
import shutil
import ssl
from ipaddress import ip_address
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlsplit

import attrs
import pytest
from postgres.rows import Rows, seconds
from postgres.tls_server import Certificate, TlsServer, serving
from postgres.working import working

from pgtasks import Config, Registry, connect, task
from pgtasks.cli import checks
from pgtasks.config import DatabaseConfig
from pgtasks.connection import is_transient, open_connection, open_pool, protection
from pgtasks.database import Database
from pgtasks.database_url import is_local
from pgtasks.errors import DatabaseUnreachable

NEEDS_OPENSSL = pytest.mark.skipif(
    shutil.which("openssl") is None, reason="certificates are made with openssl, which is not here"
)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Certificate]:
    folder = tmp_path_factory.mktemp("certificates")
    return {
        "right": Certificate.make(folder / "right", "DNS:localhost"),
        "other": Certificate.make(folder / "other", "DNS:localhost"),
        "elsewhere": Certificate.make(folder / "elsewhere", "DNS:elsewhere.example"),
        "expired": Certificate.make(folder / "expired", "DNS:localhost", is_expired=True),
    }


def at(server: TlsServer, database_url: str, query: str = "", **settings: Any) -> DatabaseConfig:
    """The test's database by way of that server."""
    name = urlsplit(database_url).path
    url = f"postgresql://postgres:s3cret@localhost:{server.port}{name}{query}"
    return DatabaseConfig(url=url, **settings)


async def refusal(database: DatabaseConfig) -> DatabaseUnreachable:
    """What opening a connection, and a pool of them, is refused with."""
    with pytest.raises(DatabaseUnreachable):
        await open_pool(database, "tests", least=1)
    with pytest.raises(DatabaseUnreachable) as caught:
        await open_connection(database, "tests")
    return caught.value


# A server without TLS, or somebody on the way who takes its offer out


async def test_by_default_the_server_decides(database_url: str):
    with serving(database_url) as server:
        opened = await open_connection(at(server, database_url), "tests")
        await opened.close()
    assert server.heard


@pytest.mark.parametrize("answer", [b"N", b"E"])
@pytest.mark.parametrize("mode", ["", "?sslmode=disable", "?sslmode=prefer"])
async def test_tls_that_is_required_and_not_there(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: str, answer: Any
):
    """Whatever the URL says; and the password is not sent before it is known."""
    joint = "&" if mode else "?"
    with serving(database_url, refusing=answer) as server:
        query = f"{mode}{joint}sslrootcert={ssl.get_default_verify_paths().openssl_cafile}"
        error = await refusal(at(server, database_url, query, require_tls=True))
        assert "SSL" in str(error)
    assert server.heard == []
    assert server.secured == 0


async def test_tls_that_the_url_asks_for_and_is_not_there(database_url: str):
    with serving(database_url) as server:
        await refusal(at(server, database_url, "?sslmode=require"))
    assert server.heard == []


# A server with TLS


@NEEDS_OPENSSL
@pytest.mark.parametrize("wrong", ["other", "elsewhere", "expired"])
async def test_a_server_that_is_not_who_it_says(
    database_url: str, certificates: dict[str, Certificate], wrong: str
):
    """Signed by somebody else, for another host, or no longer valid."""
    trusted = certificates["right" if wrong == "other" else wrong]
    with serving(database_url, certificate=certificates[wrong]) as server:
        query = f"?sslrootcert={trusted.file}"
        error = await refusal(at(server, database_url, query, require_tls=True))
        assert "certificate verify failed" in str(error)
        assert "s3cret" not in str(error)
        assert error.__cause__ is not None
        # Nobody waits for a certificate to become another.
        assert not is_transient(error.__cause__)
        # Encrypted to whoever answers: that is all that this mode asks for.
        assert await _opened(at(server, database_url, "?sslmode=require")) == "local"
    assert server.secured >= 1


@NEEDS_OPENSSL
async def test_without_a_root_certificate_nobody_is_trusted(
    database_url: str, certificates: dict[str, Certificate], monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
):  # fmt: skip
    monkeypatch.setenv("HOME", str(tmp_path))
    with serving(database_url, certificate=certificates["right"]) as server:
        error = await refusal(at(server, database_url, require_tls=True))
        assert "root certificate" in str(error)
        assert error.__cause__ is not None
        assert not is_transient(error.__cause__)


async def _opened(database: DatabaseConfig) -> str:
    connection = await open_connection(database, "tests")
    try:
        return protection(connection)
    finally:
        await connection.close()


@NEEDS_OPENSSL
@pytest.mark.parametrize("mode", ["", "sslmode=disable&", "sslmode=require&"])
async def test_a_whole_worker_over_tls(  # noqa: PLR0917 - fixtures
    database_url: str, config: Config, registry: Registry, rows: Rows, heard: Any,
    certificates: dict[str, Certificate], mode: str,
):  # fmt: skip
    """Each of its connections; and its first line says how they are protected."""
    done = asyncio.Event()

    @task(name="work", registry=registry)
    async def work() -> None:
        done.set()

    certificate = certificates["right"]
    with serving(database_url, certificate=certificate) as server:
        query = f"?{mode}sslrootcert={certificate.file}"
        secured = attrs.evolve(config, database=at(server, database_url, query, require_tls=True))
        async with connect(config=secured), working(secured, registry):
            await work.options(delay=seconds(0.1)).defer()
            async with asyncio.timeout(10):
                await done.wait()
            await rows.empty()
    assert server.heard == []
    assert server.secured >= 5
    ready = heard.fields("database ready")
    assert ready["tls"] == "verify-full"
    assert "s3cret" not in str(heard.records)
    assert ":***@localhost" in ready["database"]


async def test_a_socket_of_this_machine_needs_no_tls(database: DatabaseConfig):
    required = attrs.evolve(database, require_tls=True)
    assert await _opened(required) == "local"
    assert (await Database(required, server=None).prepare(install=False)).tls == "local"


@pytest.mark.parametrize(
    ("url", "local"),
    [
        ("postgresql:///app?host=/run/postgresql", True),
        ("postgresql://me@/app?host=/run/postgresql&port=5433", True),
        ("postgresql://%2Frun%2Fpostgresql/app", True),
        ("postgresql:///app?host=/a,/b", True),
        ("postgresql:///app?host=/a,db", False),
        ("postgresql://me@db/app?host=/run/postgresql", False),
        ("postgresql://localhost/app", False),
        ("postgresql:///app", False),
        ("postgresql://", False),
        ("", False),
    ],
)
def test_what_leads_over_no_network(url: str, local: bool):
    assert is_local(url) is local


# What is said of it


def carried(peer: Any, *, verify: Any = None, check_hostname: bool = False) -> Any:
    """A connection over such a transport."""
    secured = None
    if verify is not None:
        context = SimpleNamespace(verify_mode=verify, check_hostname=check_hostname)
        secured = SimpleNamespace(context=context)
    facts = {"ssl_object": secured, "peername": peer}
    return SimpleNamespace(_transport=SimpleNamespace(get_extra_info=facts.get))


FAR = ("192.0.2.7", 5432)
assert not ip_address(FAR[0]).is_loopback


@pytest.mark.parametrize(
    ("connection", "says"),
    [
        (carried(FAR), "none"),
        (carried(("2001:db8::1%eth0", 5432, 0, 0)), "none"),
        (carried(FAR, verify=ssl.CERT_NONE), "require"),
        (carried(FAR, verify=ssl.CERT_REQUIRED), "verify-ca"),
        (carried(FAR, verify=ssl.CERT_REQUIRED, check_hostname=True), "verify-full"),
        (carried("/run/postgresql/.s.PGSQL.5432"), "local"),
        (carried(""), "local"),
        (carried(("127.0.0.1", 5432)), "local"),
        (carried(("::1", 5432, 0, 0)), "local"),
    ],
)
def test_what_a_connection_is_protected_by(connection: Any, says: str):
    assert protection(connection) == says


@pytest.mark.parametrize(
    ("connection", "level"),
    [
        (carried(FAR), "warn"), (carried(FAR, verify=ssl.CERT_NONE), "warn"),
        (carried(FAR, verify=ssl.CERT_REQUIRED, check_hostname=True), None), (carried(""), None),
    ],
)  # fmt: skip
def test_doctor_warns_of_what_others_can_read(connection: Any, level: str | None):
    patient: Any = SimpleNamespace(session=SimpleNamespace(connection=connection))
    found = list(checks._unprotected(patient))
    assert [one.level for one in found] == ([] if level is None else [level])
    for one in found:
        assert one.next_step is not None
        assert "require-tls" in one.next_step
