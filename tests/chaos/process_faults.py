"""Faults of processes: killed, frozen, stopped, poisoned."""

import asyncio
import signal

from acceptance.tasks_under_test import blocking, dies
from chaos.arena import GRACE_SECONDS, LEASE_SECONDS, POLL_SECONDS, Arena
from chaos.fault import Fault

WAYS_TO_DIE = ("kill", "segfault", "os._exit")


class KilledChild(Fault):
    """As the out-of-memory killer does it."""

    name = "a child is killed"
    measured = "again"
    target_seconds = 2.0

    async def strike(self, arena: Arena) -> None:
        worker, child = await arena.any_child()
        worker.signal_child(child)
        # Killed faster than they start, none would ever work.
        await asyncio.sleep(2.0)


class KilledMachine(Fault):
    """Supervisor and children at once; another machine has been there all along."""

    name = "a supervisor and its children are killed"
    measured = "again"
    target_seconds = LEASE_SECONDS + POLL_SECONDS

    async def strike(self, arena: Arena) -> None:
        worker = arena.any_worker()
        await asyncio.to_thread(worker.end)
        await arena.start_worker()


class KilledSupervisor(Fault):
    """Its children find out, let what runs end, and end."""

    name = "a supervisor is killed, and its children are not"

    async def strike(self, arena: Arena) -> None:
        worker = arena.any_worker()
        worker.signal(signal.SIGKILL)
        await asyncio.to_thread(worker.wait)
        await arena.start_worker()


class FrozenWorker(Fault):
    """Frozen beyond its lease and thawed: a zombie that has missed all that happened since."""

    name = "a worker is frozen for 1.5 to 3 leases, and goes on"
    measured = "again"
    target_seconds = LEASE_SECONDS + POLL_SECONDS

    async def strike(self, arena: Arena) -> None:
        worker = arena.any_worker()
        worker.signal_group(signal.SIGSTOP)
        await asyncio.sleep(arena.random.uniform(1.5, 3.0) * LEASE_SECONDS)
        worker.signal_group(signal.SIGCONT)


class RollingRestart(Fault):
    """The new worker is there before the old one is told to go."""

    name = "a rolling restart by SIGTERM"
    measured = "exit"
    target_seconds = GRACE_SECONDS + 3.0

    async def strike(self, arena: Arena) -> None:
        old = arena.any_worker()
        await arena.start_worker()
        old.signal(signal.SIGTERM)
        await asyncio.to_thread(old.wait)


class HurriedStop(Fault):
    """The second SIGTERM does not wait for what runs."""

    name = "two SIGTERMs: what runs is cancelled"
    measured = "exit"
    target_seconds = 3.0

    async def strike(self, arena: Arena) -> None:
        old = arena.any_worker()
        await arena.start_worker()
        old.signal(signal.SIGTERM)
        await asyncio.sleep(0.3)
        old.signal(signal.SIGTERM)
        await asyncio.to_thread(old.wait)


class StoppedStart(Fault):
    """Before its handlers are set the signal ends it as it would any program."""

    name = "SIGTERM at any moment of a worker's first two seconds"
    measured = "exit"
    target_seconds = GRACE_SECONDS + 3.0

    async def strike(self, arena: Arena) -> None:
        for _ in range(5):
            starting = arena.spawn_worker()
            await asyncio.sleep(arena.random.randrange(0, 2000, 5) / 1000)
            starting.signal(signal.SIGTERM)
            code = await asyncio.to_thread(starting.wait)
            starting.is_killed = code == -signal.SIGTERM


class BlockedLoop(Fault):
    """An async function that blocks its event loop for three leases, which it must not do."""

    name = "a task blocks the event loop for 3 leases"

    async def strike(self, arena: Arena) -> None:
        key = f"blocking-{arena.random.getrandbits(48):x}"
        arena.history.accepted(key, await blocking.defer(key, 3 * LEASE_SECONDS))
        await asyncio.sleep(3 * LEASE_SECONDS)


class Poison(Fault):
    """A message that ends whichever process runs it."""

    name = "a message that kills its process"

    async def strike(self, arena: Arena) -> None:
        key, how = f"poison-{arena.random.getrandbits(48):x}", arena.random.choice(WAYS_TO_DIE)
        arena.history.accepted(key, await dies.defer(key, how), becomes="crashed")
        await asyncio.sleep(3.0)
