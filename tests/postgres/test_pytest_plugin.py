"""The fixtures in a pytest run of a user's own: databases come and go with the tests."""

import os
import re
import subprocess
import sys
from pathlib import Path

import attrs
import pytest
from postgres.test_temporary_database import Role, role

__all__ = ["role"]

ROOT = Path(__file__).parent.parent.parent

TASKS = """
from pgtasks import task

outbox = []

@task
async def send(number):
    outbox.append(number)
"""

BACKEND = """
@pytest.fixture
def anyio_backend():
    return "asyncio"
"""

PASSING = """
import asyncio

from pgtasks import connect
from pgtasks.testing import drain
from shop import outbox, send


def test_a_message_is_run(pgtasks_database):
    async def run():
        async with connect() as client:
            assert client.config.database.url == pgtasks_database.url
            await send.defer(7)
            await drain()

    asyncio.run(run())
    assert outbox == [7]
    print("database", pgtasks_database.name)
"""


@attrs.frozen
class Shop:
    """A project of a user's, and pytest runs in it."""

    folder: Path
    role: Role

    def write(self, **files: str) -> None:
        for name, text in {"shop": TASKS, **files}.items():
            (self.folder / f"{name}.py").write_text(text)

    def pytest(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run pytest with the plugin, and no other that happens to be installed."""
        environment = {
            **{name: value for name, value in os.environ.items() if "PYTEST" not in name},
            "PGTASKS_DATABASE_URL": self.role.url,
            "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
            "PYTHONPATH": f"{ROOT}{os.pathsep}{self.folder}",
        }
        command = (sys.executable, "-m", "pytest", "-p", "pgtasks.pytest_plugin", "-q", "-s")
        return subprocess.run(
            (*command, *arguments),
            cwd=self.folder,
            env=environment,
            capture_output=True,
            text=True,
            timeout=90,
            check=False,
        )

    async def left(self) -> list[str]:
        """What the run has left on the server, beside the template."""
        return [name for name in await self.role.databases() if "_template_" not in name]


@pytest.fixture
def shop(tmp_path: Path, role: Role) -> Shop:
    """A project with a task."""
    made = Shop(tmp_path, role)
    made.write()
    return made


async def test_a_test_has_a_database_that_connect_finds(shop: Shop):
    shop.write(test_shop=PASSING)
    ran = shop.pytest()
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "database pgtasks_test_" in ran.stdout
    assert await shop.left() == []


async def test_every_test_has_its_own(shop: Shop):
    shop.write(test_shop=PASSING.replace("outbox == [7]", "outbox.pop() == 7") + """

def test_another(pgtasks_database):
    print("database", pgtasks_database.name)
""")  # fmt: skip
    ran = shop.pytest()
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert len({line for line in ran.stdout.splitlines() if "database pgtasks_test" in line}) == 2
    assert await shop.left() == []


async def test_the_variable_is_what_it_was_afterwards(shop: Shop):
    shop.write(test_shop="""
import os

seen = []

def test_first(pgtasks_database):
    seen.append(os.environ["PGTASKS_DATABASE_URL"])

def test_second():
    assert os.environ["PGTASKS_DATABASE_URL"] != seen[0]
""")  # fmt: skip
    ran = shop.pytest()
    assert ran.returncode == 0, ran.stdout + ran.stderr


async def test_a_failing_test_leaves_nothing(shop: Shop):
    shop.write(test_shop=PASSING.replace("outbox == [7]", "outbox == [8]"))
    ran = shop.pytest()
    assert ran.returncode == 1
    assert "1 failed" in ran.stdout
    assert await shop.left() == []


async def test_ctrl_c_leaves_nothing(shop: Shop):
    shop.write(test_shop="""
import os, signal, threading

def test_interrupted(pgtasks_database):
    os.kill(os.getpid(), signal.SIGINT)
    threading.Event().wait(20)
""")  # fmt: skip
    ran = shop.pytest()
    assert ran.returncode == 2, ran.stdout + ran.stderr
    assert "KeyboardInterrupt" in ran.stdout
    assert await shop.left() == []


async def test_what_a_killed_run_leaves_the_next_one_drops(shop: Shop):
    shop.write(test_shop="import os\ndef test_killed(pgtasks_database): os.kill(os.getpid(), 9)")
    assert shop.pytest().returncode == -9
    assert len(await shop.left()) == 1
    shop.write(test_shop=PASSING)
    assert shop.pytest().returncode == 0
    assert await shop.left() == []


async def test_many_processes_share_the_template(shop: Shop):
    shop.write(test_shop="""
import asyncio, asyncpg, pytest

@pytest.mark.parametrize("number", range(8))
def test_one_of_many(pgtasks_database, number):
    async def run():
        connection = await asyncpg.connect(pgtasks_database.url)
        await connection.execute("CREATE TABLE mine (number int)")
        await connection.close()
    asyncio.run(run())
""")  # fmt: skip
    ran = shop.pytest("-p", "xdist", "-n", "2")
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "8 passed" in ran.stdout
    assert await shop.left() == []
    [template] = await shop.role.databases()
    assert template.startswith("pgtasks_template_")


async def test_one_database_for_a_whole_run(shop: Shop):
    shop.write(test_shop="""
import os

names = set()

def test_first(pgtasks_session_database):
    assert os.environ["PGTASKS_DATABASE_URL"] == pgtasks_session_database.url
    names.add(pgtasks_session_database.name)

def test_second(pgtasks_session_database):
    names.add(pgtasks_session_database.name)
    assert len(names) == 1

def test_one_of_its_own(pgtasks_session_database, pgtasks_database):
    assert os.environ["PGTASKS_DATABASE_URL"] == pgtasks_database.url
    assert pgtasks_database.name not in names
""")  # fmt: skip
    ran = shop.pytest()
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert await shop.left() == []


async def test_the_examples_of_the_documentation_run(shop: Shop):
    text = (ROOT / "docs" / "testing.md").read_text()
    tasks, conftest, tests, *more = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    calls = """
@pytest.mark.anyio
async def test_the_rest(pgtasks_database):
    await look_around()
    await look_for_yourself()
"""
    shop.write(
        shop=tasks,
        test_shop="\n".join([tests.replace("mark.asyncio", "mark.anyio"), *more, calls]),
        conftest=f"import pytest\n{conftest}\n{BACKEND}",
    )
    ran = shop.pytest("-p", "anyio.pytest_plugin")
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "4 passed" in ran.stdout


def test_the_fixtures_say_what_they_are(shop: Shop):
    said = shop.pytest("--fixtures").stdout
    assert "pgtasks_database" in said
    assert "A database for this test alone" in said
