"""Binary rows: new messages in the form in which COPY reads them fastest.

By hand and not by asyncpg's `copy_records_to_table`: that encodes with the codecs of the
connection, which may be the user's own, with a codec for jsonb that takes objects and not text.

The form: https://www.postgresql.org/docs/current/sql-copy.html, "Binary Format".
"""

from collections.abc import AsyncIterator, Sequence
from struct import Struct
from typing import Final

COLUMNS: Final = ("msg_id", "vt", "headers", "message")

_BEGINNING: Final = b"PGCOPY\n\xff\r\n\0" + bytes(8)
_END: Final = b"\xff\xff"
_NULL: Final = b"\xff\xff\xff\xff"
_ROW: Final = Struct(">hiqiq")  # columns; length and number; length and moment
_JSONB: Final = Struct(">ib")  # length, with the byte of the version, which is 1
PIECE: Final = 500
"""Rows that are made while the server works on those before."""


async def binary_rows(
    numbers: Sequence[int], due: Sequence[int], headers: str | None, bodies: Sequence[str]
) -> AsyncIterator[bytes]:
    """Make the rows of messages, piece by piece.

    Args:
        numbers: their ids.
        due: when each becomes due, in microseconds since 2000 (UTC).
        headers: as JSON, of all of them.
        bodies: as JSON.
    """
    between = _NULL if headers is None else _jsonb(headers)
    yield _BEGINNING
    for start in range(0, len(bodies), PIECE):
        end = start + PIECE
        piece = zip(numbers[start:end], due[start:end], bodies[start:end], strict=True)
        yield b"".join([
            _ROW.pack(len(COLUMNS), 8, number, 8, moment) + between + _jsonb(body)
            for number, moment, body in piece
        ])  # fmt: skip
    yield _END


def _jsonb(text: str) -> bytes:
    encoded = text.encode()
    return _JSONB.pack(len(encoded) + 1, 1) + encoded
