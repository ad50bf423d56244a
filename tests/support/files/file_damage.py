"""Damage to a file's content as disks, networks and copying programs cause it, each by a seeded generator."""

from __future__ import annotations

import random
from collections.abc import Callable

Damage = Callable[[bytes, random.Random], bytes]


def _part(data: bytes, chance: random.Random) -> slice:
    """Return a range of one byte up to a quarter of the content; short ones are as likely as long ones."""
    length = min(len(data), int(max(1, len(data) // 4) ** chance.random()) or 1)
    start = chance.randrange(len(data) - length + 1)
    return slice(start, start + length)


def truncate(data: bytes, chance: random.Random) -> bytes:
    return data[: chance.randrange(len(data))]


def flip_bits(data: bytes, chance: random.Random) -> bytes:
    changed = bytearray(data)
    for _ in range(chance.choice((1, 1, 2, 4, 16))):
        changed[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    return bytes(changed)


def insert(data: bytes, chance: random.Random) -> bytes:
    where = chance.randrange(len(data) + 1)
    return data[:where] + chance.randbytes(_size(chance)) + data[where:]


def delete(data: bytes, chance: random.Random) -> bytes:
    gone = _part(data, chance)
    return data[: gone.start] + data[gone.stop :]


def swap(data: bytes, chance: random.Random) -> bytes:
    """Swap two neighboring blocks."""
    both = _part(data, chance)
    middle = (both.start + both.stop) // 2
    return data[: both.start] + data[middle : both.stop] + data[both.start : middle] + data[both.stop :]


def zero(data: bytes, chance: random.Random) -> bytes:
    gone = _part(data, chance)
    return data[: gone.start] + bytes(gone.stop - gone.start) + data[gone.stop :]


def append(data: bytes, chance: random.Random) -> bytes:
    return data + chance.randbytes(_size(chance))


def _size(chance: random.Random) -> int:
    return chance.choice((1, 2, 7, 64, 1000))


DAMAGES: dict[str, Damage] = {made.__name__: made for made in (truncate, flip_bits, insert, delete, swap, zero, append)}
