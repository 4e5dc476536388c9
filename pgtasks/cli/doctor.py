"""`pgtasks doctor`."""

import textwrap
from typing import TYPE_CHECKING

import attrs

from pgtasks import exit_codes
from pgtasks.cli.options import NOTHING_GIVEN, Json, Source
from pgtasks.cli.output import painted, print_json, say

if TYPE_CHECKING:
    from pgtasks.cli.finding import Finding


def doctor(*modules: str, json: Json = False, source: Source = NOTHING_GIVEN) -> int:
    """Check everything that tasks need to run, and say what to do.

    For example:
      pgtasks doctor shop.tasks

    Exit codes: 0 nothing failed (warnings may be there), 1 something did.

    Args:
        modules: Import these, to find messages of tasks that nobody knows. Else worker.tasks.
        json: Print JSON, for programs.
        source: The settings.
    """
    from pgtasks.cli.checks import examine

    findings = examine(source, modules)
    if json:
        print_json([attrs.asdict(finding) for finding in findings])
    else:
        for finding in findings:
            _print(finding)
    failed = any(finding.level == "fail" for finding in findings)
    return exit_codes.FAILED if failed else exit_codes.OK


def _print(finding: "Finding") -> None:
    lines = finding.text.splitlines() or [""]
    indent = " " * 18
    head, *rest = [line for one in lines for line in _wrapped(one, 80)]
    word = painted(finding.level) + " " * (4 - len(finding.level))
    # The colour is ours; everything else is spelt out when it could harm.
    print(f"{word}  {finding.check:<10}  ", end="")
    say("\n".join([head, *(indent + line for line in rest)]))
    for line in _wrapped(finding.next_step or "", 76):
        say(f"{indent}> {line}")


def _wrapped(text: str, width: int) -> list[str]:
    return textwrap.wrap(text, width, break_on_hyphens=False, break_long_words=False)
