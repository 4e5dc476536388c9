"""`pgtasks explain task`: every setting of a task, who said it, and when its retries come."""

import json
import os
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from project import Project

from pgtasks import Registry, Retry, Schedule, exit_codes, task
from pgtasks.cli.explanation import FIRST_LINES, MOST_LINES, Answer, Explanation, described
from pgtasks.config import TaskConfig
from pgtasks.setting import kebab

SHOP = """\
from pgtasks import Retry, task

print("imported")


@task(
    queue="emails", timeout=30, aliases=["old.name"],
    retries=Retry(delay="250ms", give_up_on=(ValueError, OSError)),
)
async def send(user_id: int, *, locale: str = "en") -> None: ...


def when(failures, error):
    return 2 * failures if failures < 3 else None


@task(retries=when)
def picky() -> None: ...
"""


@pytest.fixture
def project(tmp_path: Path) -> Project:
    made = Project(tmp_path)
    made.write("shop.py", SHOP)
    made.write("pgtasks.toml", '[worker]\ntasks = ["shop"]\n\n[task]\nretries = 4\nlease = "9s"\n')
    return made


@pytest.fixture
def registry() -> Registry:
    return Registry()


def run(project: Project, *arguments: str, **environ: str) -> "subprocess.CompletedProcess[str]":
    """The command in the project's folder, with no setting from outside."""
    kept = {k: v for k, v in os.environ.items() if k != "DATABASE_URL" and "PGTASKS" not in k}
    return subprocess.run(
        [sys.executable, "-m", "pgtasks", "explain", "task", *arguments],
        capture_output=True, text=True, timeout=60, check=False,
        cwd=project.folder, env=kept | environ,
    )  # fmt: skip


def explained(project: Project, registry: Registry, **settings: Any) -> Explanation:
    task(name="work", registry=registry, **settings)(lambda: None)
    return Explanation.of(registry.resolve("work"), project.load())


# The command


def test_the_page(project: Project) -> None:
    done = run(project, "shop.send", PGTASKS__TASK__JITTER="0.5s")
    assert done.returncode == exit_codes.OK, done.stderr
    assert "imported" not in done.stdout
    assert done.stdout.splitlines() == [
        "task        shop.send",
        "aliases     old.name",
        "function    async def send(user_id: int, *, locale: str = 'en') -> None",
        "defined in  shop.py:6",
        "",
        "SETTING     VALUE                FROM",
        "queue       emails               decorator",
        "timeout     30s                  decorator",
        "lease       9s                   pgtasks.toml:6 task.lease",
        "retries     4                    pgtasks.toml:5 task.retries",
        "delay       250ms                decorator",
        "jitter      0.5s                 PGTASKS__TASK__JITTER",
        "max-delay   1d                   default",
        "backoff     exponential          default",
        "retry-on    every error          default",
        "give-up-on  ValueError, OSError  decorator",
        "on-success  delete               default",
        "on-failure  archive              default",
        "durable     false                default",
        "",
        "ATTEMPT  AFTER A PAUSE OF  SINCE THE FIRST FAILURE",
        "      1  at once           0s",
        "      2  250ms to 750ms    0.25s to 0.75s",
        "      3  0.5s to 1s        0.75s to 1.75s",
        "      4  1s to 1.5s        1.75s to 3.25s",
        "      5  2s to 2.5s        3.75s to 5.75s",
        "",
        "A message whose attempt 5 fails is archived.",
    ]


def test_for_programs(project: Project) -> None:
    found = json.loads(run(project, "old.name", "shop", "--json").stdout)
    assert (found["task"], found["aliases"]) == ("shop.send", ["old.name"])
    assert found["function"] == {
        "name": "shop.send", "file": "shop.py", "line": 6,
        "signature": "async def send(user_id: int, *, locale: str = 'en') -> None",
    }  # fmt: skip
    assert found["settings"][0] == {"setting": "queue", "value": "emails", "origin": "decorator"}
    assert (found["decider"], found["answers"], found["attempts"]) == (None, [], 5)
    assert found["retries"][1] == {
        "attempt": 3, "to_attempt": 3,
        "shortest_pause_seconds": 0.5, "longest_pause_seconds": 1.5,
        "shortest_total_seconds": 0.75, "longest_total_seconds": 2.75,
    }  # fmt: skip


def test_a_function_that_decides_is_asked(project: Project) -> None:
    lines = run(project, "shop.picky").stdout.splitlines()
    assert "retries     as shop.when (shop.py:13) says  decorator" in lines
    assert "shop.when (shop.py:13) decides about retries. Asked about a RuntimeError, it says:" in (
        lines
    )
    place = lines.index("FAILURES  PAUSE")
    assert [line.split(maxsplit=1) for line in lines[place + 1 : place + 4]] == [
        ["1", "2s"], ["2", "4s"], ["3", "it gives up"],
    ]  # fmt: skip
    assert lines[-1] == "A message whose attempt 5 fails is archived."
    found = json.loads(run(project, "shop.picky", "--json").stdout)
    assert found["decider"] == "shop.when (shop.py:13)"
    assert found["answers"][-1] == {"failures": 3, "pause_seconds": None, "error": None}


def test_a_task_that_is_not_there_is_named_beside_those_that_are(project: Project) -> None:
    done = run(project, "shop.sned")
    assert done.returncode == exit_codes.FAILED
    assert done.stderr.splitlines()[-2:] == [
        "pgtasks: no task is named 'shop.sned'; did you mean 'shop.send'?",
        "There are: shop.send, shop.picky",
    ]


def test_no_module_is_a_mistake_with_the_next_step(project: Project) -> None:
    project.write("pgtasks.toml", "")
    done = run(project, "shop.send")
    assert done.returncode == exit_codes.USAGE
    assert "pgtasks explain task shop.send shop.tasks" in done.stderr


def test_a_module_that_does_not_import_is_no_traceback_of_ours(project: Project) -> None:
    done = run(project, "shop.send", "not_there")
    assert (done.returncode, "Traceback" in done.stderr) == (exit_codes.FAILED, False)
    assert "no module named 'not_there'" in done.stderr


def test_wrong_settings_are_said_instead(project: Project) -> None:
    project.write("pgtasks.toml", "[task]\nretrys = 4\n")
    done = run(project, "shop.send", "shop")
    assert done.returncode == exit_codes.USAGE
    assert 'pgtasks.toml:2: task.retrys: unknown key; did you mean "retries"?' in done.stderr


# Settings and who said them


def test_every_setting_of_tasks_is_explained(project: Project, registry: Registry) -> None:
    """A key that is added to [task] cannot be forgotten."""
    names = [one.name for one in explained(project, registry).settings]
    keys = {kebab(name) for name in TaskConfig.__annotations__}
    assert set(names) - keys == {"retry-on", "give-up-on", "durable"}
    assert keys <= set(names)


SAID: dict[str, tuple[dict[str, Any], str]] = {
    "queue": ({"queue": "mail"}, "mail"),
    "timeout": ({"timeout": None}, "none"),
    "lease": ({"lease": 5}, "5s"),
    "retries": ({"retries": 3}, "3"),
    "delay": ({"retries": Retry(delay="2m")}, "2m"),
    "jitter": ({"retries": Retry(jitter=0)}, "0s"),
    "max-delay": ({"retries": Retry(max_delay="3h")}, "3h"),
    "backoff": ({"retries": Retry(backoff="linear")}, "linear"),
    "retry-on": ({"retries": Retry(retry_on=OSError)}, "OSError"),
    "give-up-on": ({"retries": Retry(give_up_on=(KeyError, OSError))}, "KeyError, OSError"),
    "on-success": ({"on_success": "archive"}, "archive"),
    "on-failure": ({"on_failure": "delete"}, "delete"),
    "durable": ({"durable": True}, "true"),
}


@pytest.mark.parametrize("name", SAID)
def test_what_the_decorator_says_is_the_decorators_and_nothing_else(
    name: str, project: Project, registry: Registry
) -> None:
    said, value = SAID[name]
    explanation = explained(project, registry, **said)
    by_name = {one.name: one for one in explanation.settings}
    assert set(by_name) == set(SAID)
    assert (by_name[name].value, by_name[name].origin) == (value, "decorator")
    assert [one.name for one in explanation.settings if one.origin == "decorator"] == [name]


def test_the_number_of_a_retry_counts_as_retries(project: Project, registry: Registry) -> None:
    by_name = {one.name: one for one in explained(project, registry, retries=Retry(7)).settings}
    assert (by_name["retries"].value, by_name["retries"].origin) == ("7", "decorator")


def test_durable_may_be_the_workers(project: Project, registry: Registry) -> None:
    project.write("pgtasks.toml", "[worker]\ndurable = true\n")
    one = explained(project, registry).settings[-1]
    assert (one.name, one.value, one.origin) == ("durable", "true", "pgtasks.toml:2 worker.durable")


def test_schedules_are_described(project: Project, registry: Registry) -> None:
    schedules = [
        Schedule("a", every="15m"),
        Schedule("b", cron="0 7 * * *"),
        Schedule("c", cron="0 7 * * MON-FRI", timezone="Europe/Berlin"),
    ]
    explanation = explained(project, registry, schedules=schedules)
    assert list(map(described, explanation.schedules)) == [
        "a: every 15m", "b: 0 7 * * *", "c: 0 7 * * MON-FRI (Europe/Berlin)",
    ]  # fmt: skip


# Attempts


@pytest.mark.parametrize("retries", [0, 1, 25, MOST_LINES])
def test_every_attempt_has_a_line(project: Project, registry: Registry, retries: int) -> None:
    attempts = explained(project, registry, retries=retries).attempts()
    assert [(one.first, one.last) for one in attempts] == [(n, n) for n in range(2, retries + 2)]


@pytest.mark.parametrize("retries", [MOST_LINES + 1, 10**6])
def test_very_many_attempts_are_folded(project: Project, registry: Registry, retries: int) -> None:
    attempts = explained(project, registry, retries=retries).attempts()
    assert len(attempts) == FIRST_LINES + 2
    assert (attempts[-1].first, attempts[-1].last) == (retries + 1, retries + 1)
    assert attempts[-2].pause == (timedelta(days=1), timedelta(days=1))
    lines = [number for one in attempts for number in (one.first, one.last)]
    assert lines == sorted(lines)
    assert attempts[-2].last + 1 == attempts[-1].first


@given(
    st.builds(
        Retry,
        max_retries=st.integers(0, 300),
        delay=st.timedeltas(timedelta(0), timedelta(days=3)),
        jitter=st.timedeltas(timedelta(0), timedelta(days=3)),
        max_delay=st.timedeltas(timedelta(seconds=1), timedelta(days=3)),
        backoff=st.sampled_from(["exponential", "linear", "constant"]),
    )
)
def test_the_table_is_what_will_be(retry: Retry) -> None:
    """Any pause that is drawn lies in its line, and all of them together in the last one's."""
    registry = Registry()
    task(name="work", retries=retry, registry=registry)(lambda: None)
    loaded = Project(Path(__file__).parent).load()
    attempts = Explanation.of(registry.resolve("work"), loaded).attempts()
    total = 0.0
    for failures in range(1, retry.max_retries + 1):
        pause = retry.delay_after(failures, None)
        assert pause is not None
        [line] = [one for one in attempts if one.first <= failures + 1 <= one.last]
        assert line.pause[0] <= pause <= line.pause[1]
        total += pause.total_seconds()
        if line.last == failures + 1:
            shortest, longest = line.waited
            assert shortest - 1e-3 <= total <= longest + 1e-3
    assert retry.delay_after(retry.max_retries + 1, None) is None


# Functions that decide


@pytest.mark.parametrize(
    ("function", "answers"),
    [
        (lambda failures, error: None, [Answer(1, None)]),
        (lambda failures, error: "5m", [Answer(n, timedelta(minutes=5)) for n in range(1, 11)]),
        (lambda failures, error: -1, [Answer(1, None, 'ConfigError: -1 is negative; write "1s"')]),
        (lambda failures, error: 1 / 0, [Answer(1, None, "ZeroDivisionError: division by zero")]),
        (lambda: 1, None),
    ],
)  # fmt: skip
def test_what_a_function_answers(
    function: Any, answers: list[Answer] | None, project: Project, registry: Registry
) -> None:
    explanation = explained(project, registry, retries=function)
    found = explanation.answers()
    if answers is None:
        [only] = found
        assert str(only.error).startswith("TypeError: ")
    else:
        assert found == answers
    assert len(explanation.attempts()) == 4  # when it fails, the settings decide


def test_an_object_that_decides_is_named_by_its_class(project: Project, registry: Registry) -> None:
    class Decider:
        def __call__(self, failures: int, error: BaseException) -> float:
            return 1.0

    place = explained(project, registry, retries=Decider()).decider
    assert str(place).endswith("Decider")
