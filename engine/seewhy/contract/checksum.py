"""The hash that a model file carries of itself.

The metadata value `seewhy.sha256` is the SHA-256 of every byte of the file, with the 64 digits of that value read as
the character `0`. The exporter seals a file as its last step, and the engine checks it at load. Standard library only.
"""

from __future__ import annotations

import hashlib

from seewhy.contract.constants import DIGEST_KEY, DIGEST_PLACEHOLDER

DIGITS = len(DIGEST_PLACEHOLDER)
# A metadata entry is a protobuf message: the key, then field 2 (0x12) with its length, then the value. Searching for
# the digits together with what stands before them cannot hit weights that look the same.
_PREFIX = DIGEST_KEY.encode() + b"\x12" + bytes([DIGITS])


def file_digests(data: bytes, recorded: str) -> tuple[str, str]:
    """Return two SHA-256 hashes of a file with the bytes `data`, each as 64 hexadecimal digits.

    Args:
        data: Bytes of the file.
        recorded: The value that the file carries as its digest.

    Returns:
        The digest that the file should carry, and the plain hash of its bytes, which `sha256sum` gives.

    Raises:
        ValueError: If `recorded` does not stand exactly once in `data` as the value of the digest's key.
    """
    start = _find_once(data, recorded)
    view = memoryview(data)
    # The metadata stands at the end of a file, so most bytes are hashed once for both.
    expected = hashlib.sha256(view[:start])
    plain = expected.copy()
    expected.update(DIGEST_PLACEHOLDER.encode())
    expected.update(view[start + DIGITS :])
    plain.update(view[start:])
    return expected.hexdigest(), plain.hexdigest()


def seal(data: bytes) -> bytes:
    """Return `data`, a serialised model whose digest is still the placeholder, with the digest in its place.

    Raises:
        ValueError: the placeholder does not stand exactly once in `data` as the value of the digest's key.
    """
    start = _find_once(data, DIGEST_PLACEHOLDER)
    digest = file_digests(data, DIGEST_PLACEHOLDER)[0].encode()
    return b"".join((memoryview(data)[:start], digest, memoryview(data)[start + DIGITS :]))


def _find_once(data: bytes, digits: str) -> int:
    """Where `digits` start in `data`."""
    entry = _PREFIX + digits.encode()
    position = data.find(entry)
    if len(digits) != DIGITS or position < 0 or data.find(entry, position + 1) >= 0:
        raise ValueError(f"the value of {DIGEST_KEY} must stand in the file exactly once")
    return position + len(_PREFIX)
