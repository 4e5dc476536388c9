"""`pgtasks explain`."""

import sys
from contextlib import redirect_stdout
from typing import TYPE_CHECKING, Annotated, Any, Final

from cyclopts import App, Parameter

from pgtasks.cli.help import PROJECT
from pgtasks.cli.options import NOTHING_GIVEN, Json, Source
from pgtasks.cli.output import print_json, print_pairs, print_table, say, span
from pgtasks.duration import format_duration
from pgtasks.errors import ConfigError, UnknownTaskError

if TYPE_CHECKING:
    from datetime import timedelta

    from pgtasks.cli.explanation import Answer, Attempts, Explanation
    from pgtasks.registry import Registry
    from pgtasks.task import Task

MOST_NAMES: Final = 20

app = App(name="explain", help="Say what is in force, and why.", help_epilogue="", group=PROJECT)


@app.command
def task(
    name: Annotated[str, Parameter(name="TASK")],
    /,
    *modules: str,
    json: Json = False,
    source: Source = NOTHING_GIVEN,
) -> None:
    """Show how the messages of a task are run: every setting, who said it, and when retries come.

    A setting is the decorator's, else that of [task] in the settings, else a default. What
    .options() said of single messages comes before all of them, and is not known here.

    For example:
      pgtasks explain task shop.tasks.send shop.tasks
      pgtasks explain task shop.tasks.send --environment production --json

    Exit codes: 0 shown, 1 there is no such task, or a module does not import, 2 wrong settings.

    Args:
        name: The task's name, or one of its aliases.
        modules: Modules to import, as Python names them: shop.tasks. Else worker.tasks.
        json: Print JSON, for programs.
        source: The settings.
    """
    from pgtasks.cli.explanation import Explanation
    from pgtasks.registry import default_registry
    from pgtasks.tasks_import import check_registered, import_tasks

    loaded = source.load()
    names = modules or loaded.config.worker.tasks
    if not names:
        raise ConfigError(
            "no module with tasks is named: name it behind the task, as in\n"
            f"  pgtasks explain task {name} shop.tasks\n"
            "or list your modules under worker.tasks"
        )
    with redirect_stdout(sys.stderr):
        import_tasks(names)
        check_registered(names)
    explanation = Explanation.of(_found(default_registry, name), loaded)
    if json:
        print_json(_plain(explanation))
    else:
        _print(explanation)


def _found(registry: "Registry", name: str) -> "Task[Any, Any]":
    try:
        return registry.resolve(name)
    except UnknownTaskError as error:
        names = [task.name for task in registry]
        more = ", ..." if len(names) > MOST_NAMES else ""
        text = f"{error}\nThere are: {', '.join(names[:MOST_NAMES])}{more}"
        raise UnknownTaskError(text) from None


# For people


def _print(explanation: "Explanation") -> None:
    from pgtasks.cli.explanation import described

    place = explanation.place
    where = "" if place.file is None else f"{place.file}:{place.line}"
    schedules = explanation.schedules
    print_pairs(
        {
            "task": explanation.task.name,
            "aliases": ", ".join(explanation.task.aliases),
            "function": explanation.signature,
            "defined in": where,
            "schedule" + "s" * (len(schedules) > 1): ", ".join(map(described, schedules)),
        }
    )
    say("")
    rows = [(one.name, one.value, one.origin) for one in explanation.settings]
    print_table(("SETTING", "VALUE", "FROM"), rows)
    say("")
    if explanation.decider is not None:
        _print_answers(explanation)
    _print_attempts(explanation)


def _print_answers(explanation: "Explanation") -> None:
    say(f"{explanation.decider} decides about retries. Asked about a RuntimeError, it says:\n")
    print_table(("FAILURES", "PAUSE"), map(_answer, explanation.answers()))
    say("\nWhen it fails, or returns no pause, this applies instead:\n")


def _answer(answer: "Answer") -> tuple[object, ...]:
    if answer.error is not None:
        return answer.failures, f"it fails: {answer.error}"
    pause = "it gives up" if answer.pause is None else format_duration(answer.pause)
    return answer.failures, pause


def _print_attempts(explanation: "Explanation") -> None:
    rows = [("1", "at once", "0s"), *map(_row, explanation.attempts())]
    print_table(("ATTEMPT", "AFTER A PAUSE OF", "SINCE THE FIRST FAILURE"), rows)
    end = {"archive": "archived", "delete": "deleted"}[explanation.policy.on_failure]
    last = explanation.retry.max_retries + 1
    say(f"\nA message whose attempt {last} fails is {end}.")


def _row(one: "Attempts") -> tuple[str, str, str]:
    number = str(one.first) if one.first == one.last else f"{one.first} to {one.last}"
    return number, _range(*map(format_duration, one.pause)), _range(*map(_total, one.waited))


def _range(shortest: str, longest: str) -> str:
    return shortest if shortest == longest else f"{shortest} to {longest}"


def _total(seconds: float) -> str:
    return f"{seconds:g}s" if seconds < 60 else span(seconds)


# For programs


def _plain(explanation: "Explanation") -> dict[str, Any]:
    from pgtasks.cli.explanation import described

    task, place, decider = explanation.task, explanation.place, explanation.decider
    return {
        "task": task.name,
        "aliases": list(task.aliases),
        "function": {"name": place.name, "file": place.file, "line": place.line,
                     "signature": explanation.signature},
        "schedules": [described(schedule) for schedule in explanation.schedules],
        "settings": [{"setting": one.name, "value": one.value, "origin": one.origin}
                     for one in explanation.settings],
        "decider": None if decider is None else str(decider),
        "answers": [{"failures": one.failures, "pause_seconds": _seconds(one.pause),
                     "error": one.error} for one in explanation.answers()],
        "attempts": explanation.retry.max_retries + 1,
        "retries": [_plain_attempts(one) for one in explanation.attempts()],
    }  # fmt: skip


def _plain_attempts(one: "Attempts") -> dict[str, Any]:
    shortest, longest = one.pause
    return {
        "attempt": one.first,
        "to_attempt": one.last,
        "shortest_pause_seconds": shortest.total_seconds(),
        "longest_pause_seconds": longest.total_seconds(),
        "shortest_total_seconds": one.waited[0],
        "longest_total_seconds": one.waited[1],
    }


def _seconds(length: "timedelta | None") -> float | None:
    return None if length is None else length.total_seconds()
