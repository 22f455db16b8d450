"""What was sealed opens to the same bytes, and nothing else opens."""

import io
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blocks.errors import BadBackup
from tasks import sealed
from tasks.sealed import CHUNK, MAGIC, SALT, TAG

KEY, OTHER = bytes(range(32)), bytes(32)
HERE = b"tandil/2026-11-24T030000Z/archive"
HEAD, PIECE = len(MAGIC) + SALT, CHUNK + TAG
PLAIN = bytes(range(256)) * (CHUNK // 256) * 3 + b"the rest"


def seal(data: bytes, step: int = 1 << 16) -> bytes:
    read = sealed.seal(io.BytesIO(data).read, KEY, HERE)
    return b"".join(iter(lambda: read(step), b""))


def unseal(data: bytes, key: bytes = KEY, context: bytes = HERE, step: int = 1 << 16) -> bytes:
    chunks = (data[start : start + step] for start in range(0, len(data), step))
    return b"".join(sealed.unseal(chunks, key, context))


SEALED = seal(PLAIN)
CHUNKS = [SEALED[start : start + PIECE] for start in range(HEAD, len(SEALED), PIECE)]
SIZES = [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK]


@pytest.mark.parametrize("size", SIZES)
def test_what_is_sealed_opens_to_the_same_bytes(size: int) -> None:
    data = PLAIN[:size]
    assert unseal(seal(data)) == data


@given(st.binary(max_size=3000), st.integers(1, 4000), st.integers(1, 4000))
def test_it_does_not_matter_in_which_pieces_it_is_read(data: bytes, written: int, read: int) -> None:
    assert unseal(seal(data, written), step=read) == data


def test_nothing_of_the_plain_text_shows() -> None:
    assert b"the rest" not in SEALED and PLAIN[:64] not in SEALED


def test_the_same_data_are_never_sealed_alike() -> None:
    assert seal(b"x")[HEAD:] != seal(b"x")[HEAD:]


@given(st.integers(0, len(SEALED) * 8 - 1))
def test_a_flipped_bit_is_refused(bit: int) -> None:
    damaged = bytearray(SEALED)
    damaged[bit // 8] ^= 1 << bit % 8
    with pytest.raises(BadBackup):
        unseal(bytes(damaged))


@given(st.integers(0, len(SEALED) - 1))
def test_a_truncated_archive_is_refused(length: int) -> None:
    with pytest.raises(BadBackup):
        unseal(SEALED[:length])


SHUFFLED = {
    "cut off after a chunk": CHUNKS[:2],
    "cut off before the last chunk": CHUNKS[:-1],
    "cut off after the head": [],
    "two chunks swapped": [CHUNKS[1], CHUNKS[0], *CHUNKS[2:]],
    "a chunk repeated": [CHUNKS[0], *CHUNKS],
    "a chunk left out": CHUNKS[1:],
    "the last chunk first": [CHUNKS[-1]],
    "something after the end": [*CHUNKS, b"x"],
    "a chunk after the end": [*CHUNKS, CHUNKS[0]],
}


@pytest.mark.parametrize("chunks", SHUFFLED.values(), ids=SHUFFLED)
def test_chunks_that_are_not_in_their_places_are_refused(chunks: list[bytes]) -> None:
    with pytest.raises(BadBackup):
        unseal(SEALED[:HEAD] + b"".join(chunks))


def test_a_chunk_of_another_archive_is_refused() -> None:
    theirs = seal(PLAIN)
    with pytest.raises(BadBackup, match="chunk 1"):
        unseal(SEALED[: HEAD + PIECE] + theirs[HEAD + PIECE :])


def test_another_key_does_not_open_it() -> None:
    with pytest.raises(BadBackup, match=r"chunk 0.*encryption_key"):
        unseal(SEALED, key=OTHER)


def test_it_does_not_open_in_the_place_of_another_backup() -> None:
    with pytest.raises(BadBackup):
        unseal(SEALED, context=HERE.replace(b"24", b"23"))


def test_what_was_never_sealed_is_refused() -> None:
    with pytest.raises(BadBackup, match="not encrypted"):
        unseal(b"PGDMP" + PLAIN)


def test_nothing_comes_out_of_a_chunk_that_is_not_authentic() -> None:
    damaged = bytearray(SEALED)
    damaged[HEAD + PIECE] ^= 1
    seen = b""
    with pytest.raises(BadBackup):
        for piece in sealed.unseal(iter([bytes(damaged)]), KEY, HERE):
            seen += piece
    assert seen == PLAIN[:CHUNK]


def test_an_error_of_what_is_read_passes_through() -> None:
    def broken() -> Iterator[bytes]:
        yield SEALED[:PIECE]
        raise EOFError("cut")

    with pytest.raises(EOFError):
        list(sealed.unseal(broken(), KEY, HERE))


def test_a_signature_is_of_the_data_the_key_and_the_context() -> None:
    signature = sealed.sign(b"data", KEY, HERE)
    assert sealed.check(b"data", signature, KEY, HERE)
    assert not sealed.check(b"date", signature, KEY, HERE)
    assert not sealed.check(b"data", signature, OTHER, HERE)
    assert not sealed.check(b"adata", signature, KEY, HERE[:-1])  # nothing moves from the one to the other
    assert not sealed.check(b"data", signature.upper(), KEY, HERE)
    assert not sealed.check(b"data", "é", KEY, HERE)
