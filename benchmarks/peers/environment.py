"""Environment: a virtual environment for each system, made once and kept in `.peers/`."""

import platform
import re
import sys
from pathlib import Path

import anyio
import attrs

from benchmarks.peers.catalogue import Peer
from benchmarks.process import ROOT

FOLDER = ROOT / ".peers"
LONGEST_SECONDS = 300.0
VERSION = "import sys; from importlib.metadata import version; print(version(sys.argv[1]))"


class NotInstalledError(Exception):
    """A system could not be installed; says why."""


@attrs.frozen
class Environment:
    """Where a system is installed, and which version of it."""

    python: Path
    version: str


async def install(peer: Peer) -> Environment:
    """Install a system with the Python that runs this, unless it is there.

    Raises:
        NotInstalledError: it could not be.
    """
    folder = FOLDER / f"{peer.name}-{sys.version_info.major}.{sys.version_info.minor}"
    python, done = folder / "bin" / "python", folder / "installed"
    wanted = "\n".join(peer.requirements)
    if not (done.exists() and done.read_text(encoding="utf-8") == wanted):
        await _run(sys.executable, "-m", "venv", "--clear", str(folder))
        await _run(
            *(str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"),
            *peer.requirements,
        )
        done.write_text(wanted, encoding="utf-8")
    return Environment(python, await _run(str(python), "-c", VERSION, peer.package))


async def _run(*command: str) -> str:
    with anyio.move_on_after(LONGEST_SECONDS):
        result = await anyio.run_process(command, check=False)
        if result.returncode == 0:
            return result.stdout.decode().strip()
        raise NotInstalledError(reason_in(result.stderr.decode(errors="replace")))
    raise NotInstalledError(f"it took longer than {LONGEST_SECONDS:g} s")


def reason_in(text: str) -> str:
    """Return what an installer's complaint comes down to."""
    if newer := re.findall(r"Requires-Python ([^;\s]+)", text):
        return f"it wants Python {newer[-1]}, and this is {platform.python_version()}"
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("ERROR:")]
    return (errors or lines or ["it did not say why"])[-1].removeprefix("ERROR: ")[:200]
