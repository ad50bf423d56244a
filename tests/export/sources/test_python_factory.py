"""Tests of `seewhy_export.sources.python_factory`: what a function may return, and errors that say what to write."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from torch import nn

from seewhy.errors import ExportError, MissingExtraError
from seewhy_export import Source
from seewhy_export.sources.registry import load_source

CODE = """
from torch import nn
from seewhy.errors import MissingExtraError
from seewhy_export import Source

def network():
    return nn.Conv2d(3, 2, 4)

def plain():
    def transform(image):
        import numpy
        return (numpy.asarray(image.resize((30, 20), 2), "float32") / 255).transpose(2, 0, 1)
    return Source(network(), labels={0: "cat", 1: "dog"}, preprocessing=transform)

def described():
    return Source(network(), "cats", image_size=(20, 30))

class Network(nn.Conv2d):
    def __init__(self, width, depth=2, *more, **others):
        super().__init__(3, width, 4)

def lacks_a_requirement():
    raise ModuleNotFoundError("This model requires einops: pip install einops")

def lacks_an_extra():
    raise MissingExtraError("timm is not installed")

def returns_nothing():
    network()

def returns_the_class():
    return Network

def returns_weights():
    return network().state_dict()

def source_of_the_class():
    return Source(Network)

made = network()
described_once = described()
size = 224
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Make a folder with Python files the current folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    (tmp_path / "pets_for_tests.py").write_text(CODE)
    package = tmp_path / "zoo_for_tests"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "pets.py").write_text(CODE)
    (package / "broken.py").write_text("import no_such_library")
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        del sys.modules[name]


@pytest.mark.parametrize("attribute", ["network", "made"])
def test_a_module_alone(attribute: str, folder: Path) -> None:
    source = load_source(f"pets_for_tests:{attribute}")
    assert isinstance(source.module, nn.Conv2d) and source.name == attribute
    weights, size = source.notes
    assert f"the weights are those that pets_for_tests:{attribute} returned; load a checkpoint" in weights
    assert "does not define the input size; 224x224 pixels are assumed; set another with --size" in size
    assert load_source(f"pets_for_tests:{attribute}", image_size=(224, 224)).notes == (weights,)
    assert load_source(f"pets_for_tests:{attribute}", "none", image_size=(224, 224)).notes == ()


@pytest.mark.parametrize("attribute", ["described", "described_once"])
def test_a_source(attribute: str, folder: Path) -> None:
    source = load_source(f"pets_for_tests:{attribute}")
    assert isinstance(source, Source) and (source.name, source.image_size, source.notes) == ("cats", (20, 30), ())


def test_a_source_with_plain_values(folder: Path) -> None:
    source = load_source("pets_for_tests:plain")
    assert source.labels == ("cat", "dog") and source.image_size == (20, 30) and source.notes == ()
    assert source.preprocessing is not None and source.preprocessing.resize == "squash"
    np.testing.assert_allclose((source.preprocessing.mean, source.preprocessing.std), ([0] * 3, [1] * 3), atol=1e-6)


def test_a_function_of_a_package(folder: Path) -> None:
    assert load_source("zoo_for_tests.pets:network").name == "network"


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (
            "pets_for_tests:lacks_a_requirement",
            r"calling lacks_a_requirement\(\) failed: ModuleNotFoundError: This model requires einops: pip install",
        ),
        (
            "zoo_for_tests.broken:network",
            r"importing zoo_for_tests\.broken failed: .*named 'no_such_library'",
        ),
        ("zoo_for_tests.dogs:network", r"no module named 'zoo_for_tests\.dogs' in the current folder or among the"),
        ("pets_for_tests.py:network", r"not the name of a Python module; write pets_for_tests:network$"),
        ("./pets_for_tests.py:network", r"write pets_for_tests:network$"),
        ("zoo_for_tests/pets.py:network", r"write zoo_for_tests\.pets:network$"),
        ("zoo_for_tests/pets:network", r"write zoo_for_tests\.pets:network$"),
        ("zoo_for_tests\\pets.py:network", r"write zoo_for_tests\.pets:network$"),
        ("../zoo/pets.py:network", r"run the command in \.\./zoo and write pets:network$"),
        ("/zoo/pets.py:network", r"run the command in /zoo and write pets:network$"),
        ("my-pets.py:network", r"write package\.module:factory, for example pets:network for the function network in"),
        (".pets:network", r"'\.pets' is not the name of a Python module; write package\.module:factory"),
        ("pets..cats:network", r"'pets\.\.cats' is not the name of a Python module"),
        ("zoo_for_tests:pets", r"pets is a module of the package zoo_for_tests; .*: zoo_for_tests\.pets:FUNCTION$"),
        ("pets_for_tests:netwrok", r"has no function 'netwrok'\. Did you mean 'network'\?$"),
        ("pets_for_tests:size", r"has no function 'size'; size is int"),
        ("pets_for_tests:Network", r"Network\(\) requires arguments \(width\), and is called without any; give them"),
        ("pets_for_tests:returns_nothing", r"not None; does it lack a return statement\?$"),
        ("pets_for_tests:returns_the_class", r"not the class Network; return an instance, Network\(\.\.\.\)$"),
        ("pets_for_tests:source_of_the_class", r"not the class Network; return an instance, Network\(\.\.\.\)$"),
        ("pets_for_tests:returns_weights", r"not OrderedDict; weights alone are not enough, so load them into"),
    ],
)
def test_errors_say_what_to_write(spec: str, message: str, folder: Path) -> None:
    with pytest.raises(ExportError, match=message) as caught:
        load_source(spec)
    assert str(caught.value).startswith(f"{spec}: ") and "\n" not in str(caught.value)


def test_a_missing_extra_passes_unchanged(folder: Path) -> None:
    with pytest.raises(MissingExtraError, match="^timm is not installed$"):
        load_source("pets_for_tests:lacks_an_extra")
