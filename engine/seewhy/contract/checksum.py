"""The SHA-256 that a model file contains of itself.

The metadata value `seewhy.sha256` is the SHA-256 of every byte of the file, with the 64 digits of that value replaced
by the character `0`. The exporter writes the hash as its last step, and the engine checks it at load. This module uses
the standard library only.
"""

from __future__ import annotations

import hashlib

from seewhy.contract.constants import DIGEST_KEY, DIGEST_PLACEHOLDER

DIGITS = len(DIGEST_PLACEHOLDER)
# A metadata entry is a protobuf message: the key, then field 2 (0x12) with its length, then the value. The search
# includes the bytes before the digits, so that it cannot match weights with the same bytes as the digits.
_PREFIX = DIGEST_KEY.encode() + b"\x12" + bytes([DIGITS])
_ENTRY = b"\x0a" + bytes([len(DIGEST_KEY)]) + _PREFIX


class FileHasher:
    """Hashes a model file as it is read, from front to back."""

    def __init__(self) -> None:
        self._plain = hashlib.sha256()
        self._expected: hashlib._Hash | None = None

    def update(self, data: bytes | memoryview) -> None:
        """Add bytes of the file other than the digest."""
        self._plain.update(data)
        if self._expected is not None:
            self._expected.update(data)

    def update_digest(self, entry: bytes) -> None:
        """Add the entry of the metadata that holds the digest, for which `is_digest` is True."""
        # The metadata is at the end of a file, so most bytes are hashed once for both hashes.
        if self._expected is None:
            self._expected = self._plain.copy()
        self._expected.update(entry[:-DIGITS] + DIGEST_PLACEHOLDER.encode())
        self._plain.update(entry)

    @property
    def plain(self) -> str:
        """SHA-256 of the bytes, as `sha256sum` computes it, as 64 hexadecimal digits."""
        return self._plain.hexdigest()

    @property
    def expected(self) -> str | None:
        """Digest that the file should contain, as 64 hexadecimal digits, or None if it contains no digest."""
        return None if self._expected is None else self._expected.hexdigest()


def is_digest(entry: bytes) -> bool:
    """Return True if a serialised entry of the metadata holds the digest of the file."""
    return len(entry) == len(_ENTRY) + DIGITS and entry.startswith(_ENTRY)


def seal(data: bytes) -> bytes:
    """Replace the placeholder of the digest in a serialised model with the digest.

    Args:
        data: Bytes of the model, which contain the placeholder.

    Returns:
        The bytes of the model with its digest.

    Raises:
        ValueError: If `data` does not contain the placeholder exactly once as the value of the digest's key.
    """
    entry = _PREFIX + DIGEST_PLACEHOLDER.encode()
    position = data.find(entry)
    if position < 0 or data.find(entry, position + 1) >= 0:
        raise ValueError(f"the file must contain the value of {DIGEST_KEY} exactly once")
    start = position + len(_PREFIX)
    digest = hashlib.sha256(data).hexdigest().encode()
    return b"".join((memoryview(data)[:start], digest, memoryview(data)[start + DIGITS :]))
