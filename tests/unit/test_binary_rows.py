"""Rows are made as the server reads them: one by one here, in the way the documentation says."""

from hypothesis import given
from hypothesis import strategies as st

from pgtasks.binary_rows import COLUMNS, PIECE, binary_rows

Row = tuple[int, int, str]
ROWS = st.lists(
    st.tuples(st.integers(0, 2**63 - 1), st.integers(-(2**63), 2**63 - 1), st.text()),
    max_size=30,
)


@given(ROWS, st.integers(0, 3), st.none() | st.text())
async def test_each_row_is_read_as_it_was_made(some: list[Row], often: int, headers: str | None):
    rows = some * (often * PIECE // 10)  # none, part of a piece, and several
    numbers, due, bodies = [n for n, _, _ in rows], [d for _, d, _ in rows], [b for *_, b in rows]
    pieces = [piece async for piece in binary_rows(numbers, due, headers, bodies)]
    made = b"".join(pieces)
    assert made[:19] == b"PGCOPY\n\xff\r\n\0" + bytes(8)
    place = 19
    for number, moment, body in rows:
        row, place = read_row(made, place)
        ids, moments, heads, texts = row
        assert ids is not None
        assert moments is not None
        assert int.from_bytes(ids, signed=True) == number
        assert int.from_bytes(moments, signed=True) == moment
        assert heads == (None if headers is None else b"\1" + headers.encode())
        assert texts == b"\1" + body.encode()
    assert made[place:] == b"\xff\xff"


def read_row(made: bytes, place: int) -> tuple[list[bytes | None], int]:
    """Read the fields of the row at a place; and where the next one begins."""
    assert int.from_bytes(made[place : place + 2]) == len(COLUMNS)
    place, fields = place + 2, list[bytes | None]()
    for _ in COLUMNS:
        size = int.from_bytes(made[place : place + 4], signed=True)
        end = place + 4 + max(size, 0)
        fields.append(None if size < 0 else made[place + 4 : end])
        place = end
    return fields, place
