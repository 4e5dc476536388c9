"""Machine: what the figures were measured on."""

import os
import platform
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import asyncpg

import pgtasks

_SETTINGS = "fsync", "synchronous_commit", "full_page_writes", "shared_buffers", "max_wal_size"


def has_uvloop() -> bool:
    """Tell whether workers of this environment run on uvloop."""
    try:
        import uvloop  # noqa: F401, PLC0415 - an extra: there or not
    except ImportError:
        return False
    return True


def load() -> str:
    """Return the load average of the last minute: more than a little at the start is a warning."""
    return f"{os.getloadavg()[0]:.1f}"


async def facts(url: str) -> dict[str, str]:
    """Return what a reader must know to compare the figures with others."""
    connection = await asyncpg.connect(url, timeout=10)
    try:
        server = await connection.fetchval("SHOW server_version")
        settings = [f"{name} {await connection.fetchval(f'SHOW {name}')}" for name in _SETTINGS]
    finally:
        await connection.close()
    loop = f"uvloop {version('uvloop')}" if has_uvloop() else "asyncio's own loop"
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "pgtasks": pgtasks.__version__,
        "cpu": f"{os.cpu_count()} cores, {_cpu_model()}; shared by server, workers and benchmark",
        "system": f"{platform.system()} {platform.release()}, {platform.machine()}",
        "python": f"{platform.python_version()}, {loop}, asyncpg {version('asyncpg')}",
        "postgresql": f"{server} ({', '.join(settings)})",
    }


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or "unknown"
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or "unknown")
