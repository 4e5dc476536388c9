"""The embedded server: found, started, shared, and stopped however its users end."""

import asyncio
import os
import shutil
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import pytest
from eventually import eventually

from pgtasks import embedded
from pgtasks.embedded import cluster, lock, postmaster
from pgtasks.embedded.binaries import Binaries
from pgtasks.embedded.place import Home, Place
from pgtasks.embedded.reaper import is_running
from pgtasks.errors import EmbeddedError

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root steps down")
on_linux = pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")

HOLD = """
import sys
from pathlib import Path
from pgtasks import embedded
server = embedded.start(Path(sys.argv[1]), durable=False)
print(server.url, flush=True)
"""
UNTIL_STDIN_ENDS = HOLD + "sys.stdin.read()\n"


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Path]:
    """A project folder; afterwards no server of it may run."""
    folder = tmp_path / "project"
    folder.mkdir()
    home = Home.of(folder).folder
    yield folder
    try:
        for mark in home.glob("*.reaper"):
            eventually(lambda mark=mark: no_reaper(mark.with_suffix("")))  # type: ignore[misc]
    finally:
        for pid in filter(None, map(postmaster.recorded_pid, home.glob("pg*"))):
            os.kill(pid, signal.SIGQUIT)
        shutil.rmtree(home, ignore_errors=True)


@pytest.fixture
def holders() -> Iterator[list["subprocess.Popen[str]"]]:
    """Processes a test started; they are ended with it."""
    processes: list[subprocess.Popen[str]] = []
    yield processes
    for process in processes:
        process.kill()
        process.communicate()


def no_server(data: Path) -> None:
    pid = postmaster.recorded_pid(data)
    assert pid is None or not is_running(pid), f"server {pid} still runs in {data}"


def assert_ended(pid: int) -> None:
    assert not is_running(pid)


def start(project: Path) -> embedded.Server:
    return embedded.start(project, durable=False)


def hold(
    project: Path, holders: list["subprocess.Popen[str]"], script: str = UNTIL_STDIN_ENDS
) -> "subprocess.Popen[str]":
    process = subprocess.Popen(
        (sys.executable, "-c", script, str(project)),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    holders.append(process)
    return process


def url_of(holder: "subprocess.Popen[str]") -> str:
    assert holder.stdout is not None
    return holder.stdout.readline().strip()


def query(server: embedded.Server | str, sql: str = "select 1") -> object:
    async def ask() -> object:
        url = server if isinstance(server, str) else server.url
        connection = await asyncpg.connect(url, timeout=10)
        try:
            return await connection.fetchval(sql, timeout=10)
        finally:
            await connection.close()

    return asyncio.run(ask())


def pid_of(server: embedded.Server) -> int:
    pid = postmaster.recorded_pid(server.data_folder)
    assert pid is not None
    return pid


def reaper_of(server: embedded.Server) -> int:
    status = Path(f"/proc/{pid_of(server)}/stat").read_text()
    return int(status.rpartition(")")[2].split()[1])


def socket_folder_of(server: embedded.Server) -> Path:
    return Path(server.url.partition("host=")[2].partition("&")[0])


def test_starts_attaches_and_stops(project: Path) -> None:
    first = start(project)
    second = start(project)
    pid = pid_of(first)
    assert query(first, "select current_database()") == "pgtasks"
    assert (second.url, second.version) == (first.url, first.version)
    first.close()
    first.close()  # idempotent: must not drop the second's reference
    assert query(second) == 1
    second.close()
    eventually(lambda: assert_ended(pid))
    eventually(lambda: assert_gone(socket_folder_of(first)))


def assert_gone(path: Path) -> None:
    assert not path.exists()


def test_data_outlives_the_server(project: Path) -> None:
    with start(project) as server:
        query(server, "create table kept as select 42 as answer")
        folder = server.data_folder
    eventually(lambda: no_server(folder))
    with start(project) as server:
        assert query(server, "select answer from kept") == 42


def test_says_what_it_is(project: Path) -> None:
    with start(project) as server:
        assert str(query(server, "show server_version")).split()[0] == server.version
        assert (server.binaries / "initdb").exists()
        assert server.data_folder.name == f"pg{server.version.partition('.')[0]}-scratch"
        assert (server.data_folder.parent / ".gitignore").read_text() == "*\n"


@pytest.mark.parametrize(("durable", "fsync"), [(True, "on"), (False, "off")])
def test_durable_data_is_synced_and_apart(project: Path, durable: bool, fsync: str) -> None:
    with embedded.start(project, durable=durable) as server:
        for setting in ("fsync", "full_page_writes", "synchronous_commit"):
            assert query(server, f"show {setting}") == fsync
        assert server.data_folder.name.endswith("-scratch") is not durable


def test_settings_do_not_come_from_the_caller(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Time zone and locale are fixed, and libpq's variables do not lead us astray."""
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    monkeypatch.setenv("PGPORT", "6543")
    monkeypatch.setenv("PGDATA", "/nowhere")
    with start(project) as server:
        assert query(server, "show timezone") == "UTC"
        assert query(server, "select pg_encoding_to_char(encoding) from pg_database") == "UTF8"
        assert query(server, "show max_connections") == "200"


def test_only_this_account_gets_in(project: Path) -> None:
    with start(project) as server:
        assert query(server, "show listen_addresses") == ""
        assert stat.S_IMODE(socket_folder_of(server).stat().st_mode) == 0o700
        assert stat.S_IMODE(server.data_folder.stat().st_mode) == 0o700
        rules = "select string_agg(distinct auth_method, ' ') from pg_hba_file_rules where type"
        assert query(server, f"{rules} <> 'local'") == "reject"


def test_processes_share_one_server(project: Path, holders: list["subprocess.Popen[str]"]) -> None:
    holder = hold(project, holders)
    url = url_of(holder)
    with start(project) as server:
        assert server.url == url
        pid = pid_of(server)
    assert query(url) == 1  # ours is closed, the holder's reference keeps it up
    assert is_running(pid)
    holder.communicate("")
    eventually(lambda: no_server(server.data_folder))


def test_eight_starts_at_once_make_one_server(
    project: Path, holders: list["subprocess.Popen[str]"]
) -> None:
    """Five are killed, among them perhaps the one that started it; the rest keep it up."""
    for _ in range(8):
        hold(project, holders)
    urls = {url_of(holder) for holder in holders}
    assert len(urls) == 1
    url = urls.pop()
    for holder in holders[:5]:
        holder.kill()
        holder.wait()
    assert query(url) == 1
    for holder in holders[5:]:
        holder.terminate()


def test_killing_every_holder_leaves_no_server(
    project: Path, holders: list["subprocess.Popen[str]"]
) -> None:
    url_of(hold(project, holders))
    url_of(hold(project, holders))
    with start(project) as server:
        pid = pid_of(server)
    for holder in holders:
        holder.kill()
    eventually(lambda: assert_ended(pid))


def test_a_starter_killed_half_way_leaves_no_server(
    project: Path, holders: list["subprocess.Popen[str]"]
) -> None:
    """Whenever it is killed: before, while and after it launches the server."""
    for after_seconds in (0.08, 0.11, 0.13, 0.15, 0.17, 0.19, 0.22):
        with start(project) as server:  # waits for whatever was left, and works
            assert query(server) == 1
        eventually(lambda: no_server(server.data_folder))
        holder = hold(project, holders)
        with pytest.raises(subprocess.TimeoutExpired):
            holder.wait(after_seconds)
        holder.kill()
        holder.wait()
    eventually(lambda: no_reaper(server.data_folder))


def no_reaper(data: Path) -> None:
    """The reaper ends with its server, so a server still coming up would be seen, too."""
    mark = lock.exclusive_now(data.with_name(f"{data.name}.reaper"))
    assert mark is not None
    os.close(mark)
    no_server(data)


def test_a_killed_initdb_does_not_poison_the_folder(
    project: Path, holders: list["subprocess.Popen[str]"]
) -> None:
    home = Home.of(project).folder
    holder = hold(project, holders)
    eventually(lambda: assert_some(home, "pg*.new-*/PG_VERSION"))
    os.killpg(holder.pid, signal.SIGKILL)
    holder.wait()
    assert not list(home.glob("pg*-scratch"))
    with start(project) as server:
        assert query(server) == 1
    assert not list(home.glob("pg*.new-*"))


def assert_some(folder: Path, pattern: str) -> None:
    assert list(folder.glob(pattern))


def test_a_new_user_can_come_while_the_server_stops(project: Path) -> None:
    for _ in range(10):
        with start(project) as server:
            assert query(server) == 1


def test_a_killed_server_is_started_again(project: Path) -> None:
    with start(project) as server:
        os.kill(pid_of(server), signal.SIGKILL)
        eventually(lambda: no_server(server.data_folder))
        with start(project) as again:
            assert again.url == server.url  # pools that reconnect find it
            assert query(again) == 1


ZOMBIE = """
import ctypes, os, signal, sys
from pathlib import Path
from pgtasks import embedded
from pgtasks.embedded import lock, postmaster
ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)  # orphans become our children, and we never wait
server = embedded.start(Path(sys.argv[1]), durable=False)
pid = postmaster.recorded_pid(server.data_folder)
state_and_parent = lambda: Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[:2]
reaper = int(state_and_parent()[1])
os.kill(reaper, signal.SIGKILL)
while state_and_parent()[1] != str(os.getpid()):
    pass
os.kill(pid, signal.SIGKILL)
again = embedded.start(Path(sys.argv[1]), durable=False)
state = state_and_parent()[0]
print(again.url, state, flush=True)
sys.stdin.read()
"""


@on_linux
def test_a_zombie_server_is_replaced(project: Path, holders: list["subprocess.Popen[str]"]) -> None:
    """A container's first process may never wait for it: its pid then looks alive for ever."""
    url, state = url_of(hold(project, holders, ZOMBIE)).split()
    assert state == "Z"
    assert query(url) == 1


@on_linux
def test_a_killed_reaper_is_replaced(project: Path) -> None:
    with start(project) as server:
        pid = pid_of(server)
        os.kill(reaper_of(server), signal.SIGKILL)
        with start(project) as again:
            assert pid_of(again) == pid
    eventually(lambda: no_server(server.data_folder))


def test_deleted_data_means_a_new_server(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The old server ends first; left alone it would take up to a minute to see for itself."""
    make = cluster.create

    def create(place: Place, binaries: Binaries, *, durable: bool) -> None:
        assert not is_running(pid)
        make(place, binaries, durable=durable)

    with start(project) as server:
        pid = pid_of(server)
        shutil.rmtree(server.data_folder)
        monkeypatch.setattr(cluster, "create", create)
        with start(project) as again:
            assert again.url != server.url
            assert query(again) == 1


def test_a_deleted_home_means_a_new_server(project: Path) -> None:
    """The locks are gone too: the old server ends with its users and leaves the new one alone."""
    with start(project) as server:
        pid = pid_of(server)
        shutil.rmtree(server.data_folder.parent)
        again = start(project)
        assert again.url != server.url
    eventually(lambda: assert_ended(pid))
    assert query(again) == 1
    again.close()


def test_ctrl_c_in_a_terminal_does_not_reach_the_server(
    project: Path, holders: list["subprocess.Popen[str]"]
) -> None:
    holder = hold(project, holders)
    url_of(holder)
    with start(project) as server:
        os.killpg(holder.pid, signal.SIGINT)
        assert holder.wait(10) != 0
        assert query(server) == 1


FORKING = (
    HOLD
    + """
import os
if os.fork():
    server.close()
    os._exit(0)
sys.stdin.read()
"""
)


def test_a_forked_child_keeps_the_server(
    project: Path, holders: list["subprocess.Popen[str]"]
) -> None:
    parent = hold(project, holders, FORKING)
    url = url_of(parent)
    parent.wait(10)
    assert query(url) == 1
    parent.communicate("")  # closes the child's stdin, too


SPAWNING = (
    HOLD
    + """
import subprocess
child = subprocess.Popen(("sleep", "60"), close_fds=False)
print(child.pid, flush=True)
sys.stdin.read()
"""
)


def test_a_program_that_a_holder_started_does_not_keep_the_server(
    project: Path, holders: list["subprocess.Popen[str]"]
) -> None:
    holder = hold(project, holders, SPAWNING)
    url_of(holder)
    child = int(url_of(holder))
    try:
        with start(project) as server:
            pass
        holder.kill()
        eventually(lambda: no_server(server.data_folder))
        assert is_running(child)
    finally:
        os.kill(child, signal.SIGKILL)


def test_long_paths(project: Path) -> None:
    """A socket's path has 107 bytes at most; folders of projects do not care."""
    deep = project.joinpath(*["a folder with a long name & ünïcode"] * 6)
    deep.mkdir(parents=True)
    home = Home.of(deep).folder
    try:
        with start(deep) as server:
            assert len(str(deep)) > 200
            assert query(server) == 1
        eventually(lambda: no_server(server.data_folder))
    finally:
        shutil.rmtree(home)


def test_another_major_is_refused(project: Path) -> None:
    with start(project) as server:
        folder = server.data_folder
    eventually(lambda: no_server(folder))
    (folder / "PG_VERSION").write_text("9\n")
    with pytest.raises(EmbeddedError, match=r"made by Postgres 9.*Nothing was changed"):
        start(project)
    assert (folder / "global/pg_control").exists()


def test_data_of_another_major_beside_is_not_passed_over(project: Path) -> None:
    home = Home.of(project)
    home.make()
    (home.folder / "pg11").mkdir()
    home.account.own(home.folder / "pg11")
    with pytest.raises(EmbeddedError, match=r"pg11 was made by Postgres 11"):
        embedded.start(project)
    with start(project) as server:  # what is thrown away anyway is not pinned
        assert query(server) == 1


def test_a_server_that_cannot_start_says_why(project: Path) -> None:
    with start(project) as server:
        settings = server.data_folder / "postgresql.conf"
    eventually(lambda: no_server(server.data_folder))
    good = settings.read_text()
    settings.write_text(good + "max_conections = 7\n")
    with pytest.raises(EmbeddedError, match=r"(?s)server\.log.*max_conections"):
        start(project)
    settings.write_text(good)
    with start(project) as server:
        assert query(server) == 1


def test_a_missing_project_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(EmbeddedError, match="not-there"):
        start(tmp_path / "not-there")


def test_a_socket_folder_of_somebody_else_is_refused(project: Path) -> None:
    with start(project) as server:
        folder = socket_folder_of(server)
    eventually(lambda: assert_gone(folder))
    folder.mkdir()
    folder.chmod(0o777)
    try:
        with pytest.raises(EmbeddedError, match=r"not a folder of the account"):
            start(project)
    finally:
        shutil.rmtree(folder)


@pytest.mark.skipif(not list(Path("/usr/lib/postgresql").glob("*/bin/initdb")), reason="no server")
def test_another_server_can_be_chosen(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = next(Path("/usr/lib/postgresql").glob("*/bin/initdb")).parent
    monkeypatch.setenv("PGTASKS_PG_BIN", str(chosen))
    with start(project) as server:
        assert server.binaries == chosen
        assert str(query(server, "show server_version")).startswith(chosen.parent.name)


@as_root
def test_existing_data_keeps_its_account(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGTASKS_PG_USER", "nobody")
    with start(project) as server:
        assert server.data_folder.owner() == "nobody"
    eventually(lambda: no_server(server.data_folder))
    monkeypatch.delenv("PGTASKS_PG_USER")
    with start(project) as server:
        assert server.data_folder.owner() == "nobody"
        assert query(server) == 1


@as_root
def test_no_parent_of_the_project_is_opened_up(project: Path) -> None:
    modes = [stat.S_IMODE(place.stat().st_mode) for place in (project, *project.parents)]
    with start(project):
        pass
    assert modes == [stat.S_IMODE(place.stat().st_mode) for place in (project, *project.parents)]
