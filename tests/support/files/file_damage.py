"""Functions that damage the content of a file as disks, networks and copying do, with a seeded random generator."""

from __future__ import annotations

import random
from collections.abc import Callable

Damage = Callable[[bytes, random.Random], bytes]


def _range(data: bytes, generator: random.Random) -> slice:
    """Return a random range of 1 byte to a quarter of the content, with a log-uniform length."""
    length = min(len(data), int(max(1, len(data) // 4) ** generator.random()) or 1)
    start = generator.randrange(len(data) - length + 1)
    return slice(start, start + length)


def truncate(data: bytes, generator: random.Random) -> bytes:
    return data[: generator.randrange(len(data))]


def flip_bits(data: bytes, generator: random.Random) -> bytes:
    changed = bytearray(data)
    for _ in range(generator.choice((1, 1, 2, 4, 16))):
        changed[generator.randrange(len(data))] ^= 1 << generator.randrange(8)
    return bytes(changed)


def insert(data: bytes, generator: random.Random) -> bytes:
    position = generator.randrange(len(data) + 1)
    return data[:position] + generator.randbytes(_size(generator)) + data[position:]


def delete(data: bytes, generator: random.Random) -> bytes:
    removed = _range(data, generator)
    return data[: removed.start] + data[removed.stop :]


def swap(data: bytes, generator: random.Random) -> bytes:
    """Swap two neighboring blocks."""
    blocks = _range(data, generator)
    middle = (blocks.start + blocks.stop) // 2
    return data[: blocks.start] + data[middle : blocks.stop] + data[blocks.start : middle] + data[blocks.stop :]


def zero(data: bytes, generator: random.Random) -> bytes:
    removed = _range(data, generator)
    return data[: removed.start] + bytes(removed.stop - removed.start) + data[removed.stop :]


def append(data: bytes, generator: random.Random) -> bytes:
    return data + generator.randbytes(_size(generator))


def _size(generator: random.Random) -> int:
    return generator.choice((1, 2, 7, 64, 1000))


_FUNCTIONS = (truncate, flip_bits, insert, delete, swap, zero, append)
DAMAGES: dict[str, Damage] = {function.__name__: function for function in _FUNCTIONS}
