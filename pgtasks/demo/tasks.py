"""The demo's task. `pgtasks demo` sends it one message for each file; a worker runs them."""

import anyio.to_thread

from pgtasks import Context, Retry, task
from pgtasks.demo.files import to_path
from pgtasks.demo.measurement import measure_file

QUEUE = "pgtasks_demo"

STORE = """
INSERT INTO pgtasks_demo.file
    (message_id, path, bytes, lines, functions, longest_name, longest_line, longest_lines)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
"""


class Stumble(Exception):  # noqa: N818 - it is staged
    """What the demo raises on purpose, as a busy server or a lost connection would."""


# Which errors are worth another attempt? A file that is missing, unreadable or no Python will be
# so in a moment too: give it up. Everything else, a lost connection say, gets three retries.
RETRIES = Retry(
    max_retries=3,
    delay="250ms",
    jitter="250ms",
    give_up_on=(FileNotFoundError, PermissionError, SyntaxError, ValueError),
)


@task(queue=QUEUE, retries=RETRIES, timeout="30s", on_success="archive")
async def measure(context: Context, path: str, *, stumble: bool = False) -> None:
    """Measure one file and store what was found."""
    if stumble and context.attempt == 1:
        raise Stumble("the first attempt fails on purpose")

    # Parsing is work for the processor: in a thread it does not hold up other messages.
    found = await anyio.to_thread.run_sync(measure_file, to_path(path))

    # One commit: the row is there if, and only if, the message is done. However often a message
    # is delivered, after whatever crash, its row is written once.
    async with context.transaction() as connection:
        await connection.execute(
            STORE, context.message_id, path, found.bytes, found.lines, found.functions,
            found.longest.name, found.longest.line, found.longest.lines,
        )  # fmt: skip
