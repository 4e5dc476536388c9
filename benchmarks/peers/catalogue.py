"""Catalogue: which systems are measured, what has to be installed, and how each was set."""

import attrs


@attrs.frozen
class Peer:
    """One system."""

    name: str
    """Its file in this folder, and the label in the tables."""
    requirements: tuple[str, ...]
    messages: int
    """How many it drains in a turn: what takes about four seconds, as measured once."""
    setting: str
    unfinished: str | None
    """Returns true while anything that was deferred is not durably done; none where to ask that
    takes so long that it would be measured too."""

    @property
    def package(self) -> str:
        """The package whose version is told."""
        return self.requirements[0].partition("==")[0].partition("[")[0]


OURS = Peer(
    "pgtasks",
    (),
    50_000,
    "the command `pgtasks worker` at its defaults",
    'SELECT EXISTS (SELECT FROM pgmq."q_bench_peers")',
)
PEERS = (
    Peer(
        "pgqueuer",
        ("pgqueuer[asyncpg]==1.6.*", "uvloop"),
        30_000,
        "asyncpg, batches of 200",
        "SELECT EXISTS (SELECT FROM pgqueuer)",
    ),
    Peer(
        "procrastinate",
        ("procrastinate==3.10.*", "psycopg[binary,pool]", "uvloop"),
        2_000,
        "psycopg, 50 jobs at once, done ones deleted",
        "SELECT EXISTS (SELECT FROM procrastinate_jobs WHERE status IN ('todo', 'doing'))",
    ),
    Peer(
        "oban",
        ("oban==0.7.*", "uvloop"),
        12_000,
        "a queue with limit 100",
        "SELECT EXISTS (SELECT FROM oban_jobs WHERE state NOT IN ('completed', 'discarded'))",
    ),
    Peer(
        "chancy",
        ("chancy==0.26.*", "psycopg[binary,pool]", "uvloop"),
        10_000,
        "asyncio executor, concurrency 100, eager polling",
        "SELECT EXISTS (SELECT FROM chancy_jobs WHERE state NOT IN ('succeeded', 'failed'))",
    ),
    Peer(
        "awa",
        ("awa-pg==0.6.*", "uvloop"),
        20_000,
        # Its view of jobs took 12 s to answer after 3,000 of them.
        "queue storage, 100 workers in a queue; its drains end when the last message starts, which "
        "is a little early, since what is unfinished takes seconds to ask",
        None,
    ),
    Peer(
        "absurd",
        ("absurd-sdk==0.5.*", "absurdctl==0.5.*", "psycopg[binary]", "uvloop"),
        3_000,
        "concurrency 100, its poll interval of 0.25 s",
        "SELECT EXISTS (SELECT FROM absurd.t_bench WHERE state NOT IN ('completed', 'failed'))",
    ),
)
