"""Tests of `seewhy.contract.checksum`: the SHA-256 that a model file contains of itself."""

from __future__ import annotations

import hashlib

import pytest

from seewhy.contract.checksum import file_digests, seal
from seewhy.contract.constants import DIGEST_KEY, DIGEST_PLACEHOLDER
from support.tiny_model import Tiny


def digits(data: bytes) -> str:
    """Return the recorded digest: the 64 characters after the key and two bytes of protobuf."""
    start = data.index(DIGEST_KEY.encode()) + len(DIGEST_KEY) + 2
    return data[start : start + 64].decode()


def test_seal_by_hand() -> None:
    data = Tiny().proto().SerializeToString()
    sealed = seal(data)
    assert len(sealed) == len(data)
    assert digits(data) == DIGEST_PLACEHOLDER
    assert digits(sealed) == hashlib.sha256(data).hexdigest()
    assert sealed.replace(digits(sealed).encode(), DIGEST_PLACEHOLDER.encode()) == data
    assert file_digests(sealed, digits(sealed)) == (digits(sealed), hashlib.sha256(sealed).hexdigest())


def test_a_change_of_any_byte_changes_the_digest() -> None:
    sealed = seal(Tiny().proto().SerializeToString())
    recorded = digits(sealed)
    own = range(sealed.index(recorded.encode()), sealed.index(recorded.encode()) + 64)
    for position in {*range(0, len(sealed), 37), len(sealed) - 1} - set(own):
        changed = bytearray(sealed)
        changed[position] ^= 1
        try:
            assert file_digests(bytes(changed), recorded)[0] != recorded, position
        except ValueError:  # the change is in the key before the digits
            assert position in range(own.start - 20, own.start)


def test_placeholder_among_the_weights_is_not_replaced() -> None:
    data = DIGEST_PLACEHOLDER.encode() * 3 + Tiny().proto().SerializeToString()
    assert seal(data).startswith(DIGEST_PLACEHOLDER.encode() * 3)


def test_files_without_exactly_one_digest_are_refused() -> None:
    data = Tiny().proto().SerializeToString()
    for wrong in (b"", b"nothing", seal(data), data + data):
        with pytest.raises(ValueError, match="exactly once"):
            seal(wrong)
    with pytest.raises(ValueError, match="exactly once"):
        file_digests(data, "0")
