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


def file_digests(data: bytes, recorded: str) -> tuple[str, str]:
    """Return two SHA-256 hashes of a model file, each as 64 hexadecimal digits.

    Args:
        data: Bytes of the file.
        recorded: Digest that the file contains.

    Returns:
        The digest that the file should contain, and the plain hash of its bytes, as `sha256sum` computes it.

    Raises:
        ValueError: If `data` does not contain `recorded` exactly once as the value of the digest's key.
    """
    start = _find_once(data, recorded)
    view = memoryview(data)
    # The metadata is at the end of a file, so most bytes are hashed once for both hashes.
    expected = hashlib.sha256(view[:start])
    plain = expected.copy()
    expected.update(DIGEST_PLACEHOLDER.encode())
    expected.update(view[start + DIGITS :])
    plain.update(view[start:])
    return expected.hexdigest(), plain.hexdigest()


def seal(data: bytes) -> bytes:
    """Replace the placeholder of the digest in a serialised model with the digest.

    Args:
        data: Bytes of the model, which contain the placeholder.

    Returns:
        The bytes of the model with its digest.

    Raises:
        ValueError: If `data` does not contain the placeholder exactly once as the value of the digest's key.
    """
    start = _find_once(data, DIGEST_PLACEHOLDER)
    digest = file_digests(data, DIGEST_PLACEHOLDER)[0].encode()
    return b"".join((memoryview(data)[:start], digest, memoryview(data)[start + DIGITS :]))


def _find_once(data: bytes, digits: str) -> int:
    """Return the position of the digest's value in `data`, which must contain it exactly once."""
    entry = _PREFIX + digits.encode()
    position = data.find(entry)
    if len(digits) != DIGITS or position < 0 or data.find(entry, position + 1) >= 0:
        raise ValueError(f"the file must contain the value of {DIGEST_KEY} exactly once")
    return position + len(_PREFIX)
