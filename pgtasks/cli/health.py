"""`pgtasks health`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from pgtasks import exit_codes
from pgtasks.cli.options import Json
from pgtasks.cli.output import painted, print_json, say, span
from pgtasks.layers import find_project_folder

if TYPE_CHECKING:
    from pgtasks.health import Problem
    from pgtasks.health_file import Status

_ADVICE = {
    "starting": "wait; a module that takes long to import, or a lifespan that waits, holds it up",
    "slow start": "see its log; a larger worker.health.start-within gives it more time",
    "frozen": "it was stopped, the machine is too busy, or code in C does not let go of Python",
    "held up": "a task blocks it: use `def` instead of `async def`, or `await` what it waits for",
    "database": "see the worker's log, then `pgtasks doctor`; it goes on by itself",
    "draining": "wait; another takes its place",
    "stopping": "wait; what runs may end within worker.grace",
    "silent": "it was stopped, or the machine is too busy; end it if it stays so",
}
_WHERE = "start one with `pgtasks worker`, by the same account on the same machine or container"
_A_FAULT = "a mistake in pgtasks; start the worker anew, and please report it with its log"


def health(
    *,
    ready: bool = False,
    pid: Annotated[int | None, Parameter(metavar="PID")] = None,
    every: Annotated[bool, Parameter(name="--all")] = False,
    json: Json = False,
) -> int:
    """Tell whether the workers of this project, on this machine, are alive.

    For containers: it needs no database, takes no longer than Python takes to start, and never
    waits. Alive means that there is no reason to start a worker anew, whatever the database does.

    For example:
      pgtasks health                     Docker's HEALTHCHECK, a liveness probe of Kubernetes
      pgtasks health --ready             a readiness probe

    Exit codes: 0 all of them are, 1 one is not, or there is none, 2 wrong usage.

    Args:
        ready: Ask whether they are ready: started, not stopping, and the database answers.
        pid: Ask the worker with this process id.
        every: Ask the workers of all projects.
        json: Print JSON, for programs.
    """
    from pgtasks.health_file import find_workers

    folder = str(find_project_folder(Path.cwd()))
    found = find_workers()
    asked = [one for one in found if every or _is_asked(one, folder, pid)]
    if json:
        print_json([_plain(one) for one in asked])
    elif asked:
        for one in asked:
            _print(one)
    else:
        say(_none_found(found, folder, pid, every=every))
    states = [one.health.is_ready if ready else one.health.is_live for one in asked]
    return exit_codes.OK if states and all(states) else exit_codes.FAILED


def _is_asked(status: "Status", folder: str, pid: int | None) -> bool:
    return status.pid == pid if pid is not None else status.project_folder == folder


def _plain(status: "Status") -> dict[str, Any]:
    health = status.health
    return {
        "pid": status.pid,
        "project_folder": status.project_folder,
        "live": health.is_live,
        "ready": health.is_ready,
        "processes": health.processes,
        "problems": [
            {"kind": one.kind, "pid": one.pid, "seconds": round(one.seconds, 1), "text": one.text}
            for one in health.problems
        ],
    }


def _print(status: "Status") -> None:
    health = status.health
    word = "ok" if health.is_ready else "warn" if health.is_live else "fail"
    live = "live" if health.is_live else "not live"
    ready = "ready" if health.is_ready else "not ready"
    print(painted(word) + " " * (6 - len(word)), end="")
    say(f"worker {status.pid}: {live}, {ready}")
    for problem in health.problems:
        _print_problem(problem)


def _print_problem(problem: "Problem") -> None:
    since = f", for {span(problem.seconds)}" if problem.seconds else ""
    process = "" if problem.pid is None else f" (process {problem.pid})"
    say(f"      {problem.text}{process}{since}")
    say(f"      > {_ADVICE.get(problem.kind, _A_FAULT)}")


def _none_found(found: "list[Status]", folder: str, pid: int | None, *, every: bool) -> str:
    if pid is not None:
        text = f"fail  no worker with the process id {pid} runs here"
    elif every:
        text = "fail  no worker runs here"
    else:
        text = f"fail  no worker of {folder} runs here"
    text += f"\n      > {_WHERE}"
    if others := [f"worker {one.pid} of {one.project_folder}" for one in found]:
        text += f"\n      > there is {', '.join(others)}; ask for it by --pid, or --all"
    return text
