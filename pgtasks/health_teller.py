"""Health teller: keeps the health file of a worker fresh, and answers over HTTP where it may."""

import asyncio
import os
from collections.abc import Callable

import attrs

from pgtasks.config import HealthConfig
from pgtasks.errors import ConfigError
from pgtasks.events import Events
from pgtasks.health import Health
from pgtasks.health_file import HealthFile, Status
from pgtasks.health_server import HealthServer
from pgtasks.layers import Loaded

log = Events("pgtasks.health")

TELL_SECONDS = 1.0


@attrs.define(eq=False)
class HealthTeller:
    """Tells how a worker is, on the event loop of its supervisor and never when that hangs."""

    _loaded: Loaded
    _health: Callable[[], Health]
    _file: HealthFile | None = attrs.field(default=None, init=False)
    _server: HealthServer = attrs.field(init=False)
    _timer: asyncio.TimerHandle | None = attrs.field(default=None, init=False)
    _is_failing: bool = attrs.field(default=False, init=False)

    def __attrs_post_init__(self) -> None:
        self._server = HealthServer(self._health)

    async def start(self) -> None:
        """Begin to tell.

        Raises:
            ConfigError: the address to answer at cannot be had.
        """
        await self._listen()
        self._tell()

    def close(self) -> None:
        """Tell no more; the file goes with it."""
        self._server.close()
        if self._timer is not None:
            self._timer.cancel()
        if self._file is not None:
            self._file.close()
            self._file = None

    @property
    def _config(self) -> HealthConfig:
        return self._loaded.config.worker.health

    async def _listen(self) -> None:
        address = self._config.listen
        if address is None:
            return
        try:
            await self._server.listen(address)
        except OSError as error:
            origin = self._loaded.origins.get("worker.health.listen", "worker.health.listen")
            why = os.strerror(error.errno).lower() if error.errno else str(error)
            raise ConfigError(
                f"{origin}: worker.health.listen: cannot listen on {address}: {why}; write another "
                "address or port (each worker of a machine needs its own), or end what has this one"
            ) from error
        log.info("answering /livez and /readyz", address=address)

    def _status(self) -> Status:
        stale_after = self._config.stale_after.total_seconds()
        return Status.of(self._loaded.project_folder, stale_after, self._health())

    def _tell(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(TELL_SECONDS, self._tell)
        try:
            self._write()
        except OSError as error:
            if not self._is_failing:
                log.warning("`pgtasks health` cannot know of this worker", error=str(error))
            self._is_failing = True
        else:
            self._is_failing = False

    def _write(self) -> None:
        # Some systems remove what an account left in memory or in /tmp when it logs out.
        if self._file is not None and self._file.is_gone():
            self._file.close()
            self._file = None
        if self._file is None:
            self._file = HealthFile.make(self._status())
        else:
            self._file.write(self._status())
