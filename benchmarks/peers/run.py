"""peers: other task queues on the same server, in the same rounds as pgtasks."""

import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from importlib.metadata import version
from pathlib import Path

import attrs

from benchmarks.bench import Bench
from benchmarks.peers.catalogue import OURS, PEERS, Peer
from benchmarks.peers.contestant import (
    AT_ONCE,
    BULK,
    DRAIN,
    FIFTY,
    ONE,
    P50,
    P99,
    SPACED,
    SPACING_SECONDS,
    Contestant,
    set_up,
)
from benchmarks.peers.environment import Environment, NotInstalledError, install
from benchmarks.report import Result, times
from benchmarks.rounds import Sample, compete
from benchmarks.server import empty_database, own_database
from benchmarks.stats import Series, ratio

TITLES = {
    DRAIN: ("messages/s", "no-op async tasks worked by one process, each durably done"),
    BULK: ("messages/s", "many messages deferred by one call"),
    ONE: ("messages/s", "single awaited defers, one after another"),
    FIFTY: ("messages/s", f"single awaited defers, {AT_ONCE} at once"),
    P50: ("ms", "an idle worker, from the answer to `defer` to the start: p50"),
    P99: ("ms", "an idle worker, from the answer to `defer` to the start: p99"),
}


@attrs.define
class _Peers:
    """Those that take part, and why others do not."""

    contestants: dict[str, Contestant] = attrs.field(factory=dict)
    absent: dict[str, str] = attrs.field(factory=dict)

    def drop(self, name: str, why: BaseException) -> None:
        self.contestants.pop(name, None)
        self.absent[name] = _said(why)
        print(f"  {name} is not measured: {self.absent[name]}", file=sys.stderr, flush=True)


async def run(bench: Bench) -> tuple[Result, ...]:
    """Set every system up that can be, and let them take turns."""
    peers = _Peers()
    async with AsyncExitStack() as stack:
        await _add(peers, OURS, bench, stack)
        for peer in PEERS:
            await _add(peers, peer, bench, stack)
        turns = [_turn(peers, name) for name in tuple(peers.contestants)]
        samples = await compete(turns, bench.rounds)
        labels = {
            name: f"{name} {contestant.installed.version}"
            for name, contestant in peers.contestants.items()
        }
    return (_introduction(peers, labels), *(_result(what, labels, samples) for what in TITLES))


async def _add(peers: _Peers, peer: Peer, bench: Bench, stack: AsyncExitStack) -> None:
    print(f"  {peer.name} …", file=sys.stderr, flush=True)
    try:
        installed = await _installed(peer)
        url = await stack.enter_async_context(_database(peer, bench))
        contestant = await stack.enter_async_context(set_up(peer, installed, url, bench))
    except Exception as error:  # noqa: BLE001 - said in the results; the others go on
        peers.drop(peer.name, error)
    else:
        peers.contestants[peer.name] = contestant


async def _installed(peer: Peer) -> Environment:
    if peer is OURS:
        return Environment(Path(sys.executable), version("pgtasks"))
    return await install(peer)


@asynccontextmanager
async def _database(peer: Peer, bench: Bench) -> AsyncIterator[str]:
    make = own_database if peer is OURS else empty_database
    async with make(bench.url) as url:
        yield url


def _turn(peers: _Peers, name: str) -> Callable[[], Awaitable[Sample]]:
    async def turn() -> Sample:
        contestant = peers.contestants.get(name)
        if contestant is None:
            return {}
        print(f"  {name}: a turn", file=sys.stderr, flush=True)
        try:
            sample = await contestant.turn()
        except Exception as error:  # noqa: BLE001 - said in the results; the others go on
            peers.drop(name, error)
            return {}
        return {f"{name} {what}": value for what, value in sample.items()}

    return turn


def _said(error: BaseException) -> str:
    """The innermost error's last line; a group says nothing by itself."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    if isinstance(error, NotInstalledError):
        return f"not installed: {error}"
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[-1][:200]}"


def _introduction(peers: _Peers, labels: dict[str, str]) -> Result:
    lines = [
        f"- {labels[name]}: {contestant.peer.setting}; {contestant.size:,} messages"
        for name, contestant in peers.contestants.items()
    ]
    lines += [f"- {name} was not measured: {why}" for name, why in peers.absent.items()]
    return Result(
        "peers",
        "other task queues on Postgres, on this server and in the same rounds",
        (),
        (
            "Each has an environment and a database of its own, one worker process, and is used "
            "as its documentation shows. One payload of one integer. A drain starts with a full "
            "queue and lasts from the start of the first message until the last is durably done; "
            "each system gets as many messages as it works in some four seconds. To an idle "
            f"worker {SPACED} messages are deferred, {SPACING_SECONDS * 1000:g} ms apart.\n\n"
            + "\n".join(lines)
        ),
    )


def _result(what: str, labels: dict[str, str], samples: dict[str, tuple[float, ...]]) -> Result:
    unit, title = TITLES[what]
    ours = labels.get(OURS.name)
    series = tuple(
        Series(label, unit, samples[f"{name} {what}"], None if name == OURS.name else ours)
        for name, label in labels.items()
    )
    return Result(f"peers-{what}", title, series, ratios(series, ours))


def ratios(series: tuple[Series, ...], ours: str | None) -> str:
    """Say how many times the others' figures ours are."""
    own = next((one for one in series if one.label == ours), None)
    others = [
        f"{times(ratio(own.samples, other.samples))} times {other.label}"
        for other in series
        if own is not None and other is not own
    ]
    return f"pgtasks, in the same rounds: {', '.join(others)}." if others else ""
