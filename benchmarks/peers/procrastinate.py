"""procrastinate, over its asynchronous psycopg connector."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from procrastinate import App, PsycopgConnector

from benchmarks.peers.side import Producer, ready
from benchmarks.peers.side import note as take_note

CONCURRENCY = 50

app = App(connector=PsycopgConnector())


@app.task(name="note", queue="bench")
async def note(number: int) -> None:
    """Do nothing, or stamp."""
    take_note(number)


async def prepare(url: str) -> None:
    """Apply its schema."""
    async with _opened(url) as opened:
        await opened.schema_manager.apply_schema_async()


@asynccontextmanager
async def produce(url: str) -> AsyncIterator[Producer]:
    """Defer through its pool; many by its batch call."""
    async with _opened(url):

        async def many(numbers: Sequence[int]) -> None:
            await note.batch_defer_async(*({"number": number} for number in numbers))

        yield Producer(many, lambda number: note.defer_async(number=number))


async def work(url: str) -> None:
    """Run its worker with many jobs at once; what is done is deleted."""
    async with _opened(url) as opened:
        ready()
        await opened.run_worker_async(
            queues=["bench"],
            concurrency=CONCURRENCY,
            delete_jobs="successful",
            install_signal_handlers=False,
        )


@asynccontextmanager
async def _opened(url: str) -> AsyncIterator[App]:
    with app.replace_connector(
        PsycopgConnector(conninfo=url, min_size=10, max_size=10)
    ) as replaced:
        async with replaced.open_async():
            yield replaced
