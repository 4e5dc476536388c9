"""A process that only LISTENs, and writes down when it was told something.

python -m benchmarks.bare_listen URL CHANNEL STAMPS
"""

import os
import sys

import anyio
import asyncpg

from benchmarks.machine import has_uvloop
from benchmarks.stamps import write_stamp


async def main(url: str, channel: str, stamps: str) -> None:
    """Listen until the process is ended."""
    file = os.open(stamps, os.O_WRONLY | os.O_APPEND)

    def told(_connection: object, _pid: int, _channel: str, payload: object) -> None:
        number = str(payload)
        if number.isdigit():
            write_stamp(file, int(number))

    connection = await asyncpg.connect(url)
    await connection.add_listener(channel, told)
    print("ready", flush=True)
    await anyio.sleep_forever()


if __name__ == "__main__":
    place, name, file_name = sys.argv[1:]
    anyio.run(main, place, name, file_name, backend_options={"use_uvloop": has_uvloop()})
