"""Tests of `seewhy.contract.checksum`: the SHA-256 that a model file contains of itself."""

from __future__ import annotations

import hashlib

import pytest

from seewhy.contract.checksum import FileHasher, is_digest, seal
from seewhy.contract.constants import DIGEST_KEY, DIGEST_PLACEHOLDER
from support.tiny_model import Tiny


def digits(data: bytes) -> str:
    """Return the recorded digest: the 64 characters after the key and two bytes of protobuf."""
    start = data.index(DIGEST_KEY.encode()) + len(DIGEST_KEY) + 2
    return data[start : start + 64].decode()


def hashed(data: bytes) -> FileHasher:
    """Hash a sealed model as a reader of the file does: first what is before the digest's entry, then the rest."""
    start = data.index(b"\x0a\x0d" + DIGEST_KEY.encode())
    end = start + 2 + len(DIGEST_KEY) + 2 + 64
    assert is_digest(data[start:end])
    hasher = FileHasher()
    hasher.update(data[:start])
    hasher.update_digest(data[start:end])
    hasher.update(memoryview(data)[end:])
    return hasher


def test_seal_by_hand() -> None:
    data = Tiny().proto().SerializeToString()
    sealed = seal(data)
    assert len(sealed) == len(data)
    assert digits(data) == DIGEST_PLACEHOLDER
    assert digits(sealed) == hashlib.sha256(data).hexdigest()
    assert sealed.replace(digits(sealed).encode(), DIGEST_PLACEHOLDER.encode()) == data
    assert hashed(sealed).expected == digits(sealed)
    assert hashed(sealed).plain == hashlib.sha256(sealed).hexdigest()


def test_a_change_of_any_byte_changes_the_digest() -> None:
    sealed = seal(Tiny().proto().SerializeToString())
    recorded = digits(sealed)
    own = range(sealed.index(recorded.encode()), sealed.index(recorded.encode()) + 64)
    for position in {*range(0, len(sealed), 37), len(sealed) - 1} - set(own):
        changed = bytearray(sealed)
        changed[position] ^= 1
        if position not in range(own.start - len(DIGEST_KEY) - 4, own.start):  # the entry that is searched for
            assert hashed(bytes(changed)).expected != recorded, position


def test_entries_that_are_not_the_digest() -> None:
    entry = b"\x0a\x0d" + DIGEST_KEY.encode() + b"\x12\x40" + b"0" * 64
    assert is_digest(entry)
    for other in (b"", entry[:-1], entry + b"0", entry.replace(b"\x12", b"\x1a"), entry.replace(b"256", b"255")):
        assert not is_digest(other)
    assert FileHasher().expected is None


def test_placeholder_among_the_weights_is_not_replaced() -> None:
    data = DIGEST_PLACEHOLDER.encode() * 3 + Tiny().proto().SerializeToString()
    assert seal(data).startswith(DIGEST_PLACEHOLDER.encode() * 3)


def test_files_without_exactly_one_digest_are_refused() -> None:
    data = Tiny().proto().SerializeToString()
    for wrong in (b"", b"nothing", seal(data), data + data):
        with pytest.raises(ValueError, match="exactly once"):
            seal(wrong)
