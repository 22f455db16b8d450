"""Reads of any size become pieces of one size, and back."""

import io

from hypothesis import given
from hypothesis import strategies as st

from tasks.streams import blocks, fill, reading


@given(st.lists(st.binary(min_size=1, max_size=9)), st.integers(1, 20))
def test_a_piece_is_filled_from_however_little_each_read_gives(pieces: list[bytes], size: int) -> None:
    read = reading(pieces)
    data = b"".join(iter(lambda: fill(read, size), b""))
    assert data == b"".join(pieces)


@given(st.binary(max_size=50), st.integers(1, 10))
def test_the_last_block_alone_is_said_to_be_the_last(data: bytes, size: int) -> None:
    found = list(blocks(io.BytesIO(data).read, size))
    assert b"".join(block for block, _ in found) == data
    assert [last for _, last in found] == [False] * (len(found) - 1) + [True]
    assert all(len(block) == size for block, last in found if not last) and (found[-1][0] or len(found) == 1)
