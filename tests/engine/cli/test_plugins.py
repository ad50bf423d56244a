"""Tests of plug-in commands of `seewhy`: they are listed, and loaded or reported as missing when called."""

from __future__ import annotations

import sys
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from seewhy.cli import main
from seewhy.errors import ExportError
from support.command_line import failed, run


def plug_in(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, code: str, name: str = "export") -> None:
    (tmp_path / "plugged.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "plugged", raising=False)
    entry = EntryPoint(name, "plugged:command", "seewhy.commands")
    monkeypatch.setattr(main, "entry_points", lambda group: [entry] if group == entry.group else [])


@pytest.mark.parametrize(("name", "extra"), [("export", "export"), ("demo", "demo")])
def test_plug_in_without_its_extra(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str, extra: str) -> None:
    plug_in(monkeypatch, tmp_path, "import torch_that_is_not_there.nn", name)
    listed = run("--help")
    assert listed.exit_code == 0 and f"  {name} " in listed.stdout and listed.stderr == ""
    words = rf'seewhy {name} cannot start: torch_that_is_not_there is not installed; run: pip install "\.\[{extra}\]"'
    for arguments in ([], ["resnet50", "-o", "x.onnx", "--size", "9"], ["--help"]):
        failed(run(name, *arguments), words)


def test_plug_in_that_cannot_be_imported(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    plug_in(monkeypatch, tmp_path, "raise ImportError('libtorch.so: cannot open\\nshared object')")
    failed(run("export"), r"cannot start: libtorch\.so: cannot open")


WORKING = """
import click
from seewhy.errors import ExportError

@click.command("export")
@click.argument("source")
def command(source):
    if source == "wrong":
        raise ExportError("no network called wrong")
    if source == "unwritable":
        raise PermissionError(13, "Permission denied", "/x/model.onnx")
    if source == "large":
        raise MemoryError
    if source == "bug":
        raise ZeroDivisionError
    click.echo(f"exported {source}")
"""


def test_plug_in(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    plug_in(monkeypatch, tmp_path, WORKING)
    assert run("export", "resnet50").stdout == "exported resnet50\n"
    assert "SOURCE" in run("export", "--help").stdout
    failed(run("export", "wrong"), "no network called wrong")
    failed(run("export", "unwritable"), "/x/model.onnx: Permission denied")
    failed(run("export", "large"), "not enough memory$")
    # A bug is not reported as an error of the user.
    assert isinstance(run("export", "bug").exception, ZeroDivisionError)
    assert ExportError.__mro__[1].__name__ == "SeewhyError"


def test_plug_ins_are_found() -> None:
    listed = run("--help").stdout
    assert "  export " in listed and "  demo " in listed


def test_help_does_not_import_plug_ins(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    plug_in(monkeypatch, tmp_path, "raise SystemError('imported')")
    assert run("--help").exit_code == 0
