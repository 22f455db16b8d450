"""Turn what is read into pieces of one size, and pieces back into something to read from.

A read function gives at most the bytes asked for, and none only at the true end: that what is read from succeeded.
"""

from collections.abc import Callable, Iterable, Iterator

Read = Callable[[int], bytes]


def fill(read: Read, size: int) -> bytes:
    """Exactly that many bytes, fewer only at the end."""
    data = read(size)
    if len(data) == size or not data:
        return data
    buffer = bytearray(data)
    while len(buffer) < size and (more := read(size - len(buffer))):
        buffer += more
    return bytes(buffer)


def blocks(read: Read, size: int) -> Iterator[tuple[bytes, bool]]:
    """Blocks of that many bytes, each with whether it is the last; the last one may be shorter, or empty if alone."""
    block = fill(read, size)
    while following := fill(read, size) if len(block) == size else b"":
        yield block, False
        block = following
    yield block, True


def reading(pieces: Iterable[bytes]) -> Read:
    """A read function over pieces of any size; what they raise, it raises."""
    rest, buffer = iter(pieces), bytearray()

    def read(size: int) -> bytes:
        while not buffer:
            piece = next(rest, None)
            if piece is None:
                return b""
            buffer.extend(piece)
        data = bytes(buffer[:size])
        del buffer[:size]
        return data

    return read
