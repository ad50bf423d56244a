"""Tests of `seewhy._shared.regular_files`: devices, pipes and sockets are refused without being read."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from seewhy._shared.regular_files import open_regular


def test_a_regular_file_and_a_link_to_one_are_opened(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"content")
    (tmp_path / "link").symlink_to("file")
    for name in ("file", "link"):
        with open_regular(tmp_path / name) as file:
            assert file.read() == b"content"


@pytest.mark.parametrize("kind", ["folder", "pipe", "socket", "device"])
def test_other_kinds_of_files_are_refused_at_once(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # the path of a socket may have at most 107 bytes
    path = Path("made")
    server = socket.socket(socket.AF_UNIX)
    with server:
        if kind == "folder":
            path.mkdir()
        elif kind == "pipe":
            os.mkfifo(path)
        elif kind == "socket":
            server.bind(str(path))
        else:
            path = Path("/dev/zero")
        with pytest.raises(OSError) as caught:
            open_regular(path)
    assert f"it is a {kind}, not a" in str(caught.value.strerror)


def test_no_descriptor_is_left_open(tmp_path: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        with pytest.raises(IsADirectoryError):
            open_regular(tmp_path)
    assert len(os.listdir("/proc/self/fd")) == before
