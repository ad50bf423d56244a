"""Tests of damaged and malicious model files: each is refused with a one-line error or holds the original content.

With `verify=False`, onnxruntime loads the damaged graph. Of 4,000 damaged copies, none crashed onnxruntime 1.32, and
500 gave other numbers. A crash inside onnxruntime would not be a fault of SeeWhy. The tests require that SeeWhy does
not crash before that, and that every error is a `SeewhyError`.
"""

from __future__ import annotations

import hashlib
import json
import random
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto
from PIL import Image

from seewhy import Explainer, SeewhyError, Settings, explain_folder
from seewhy.cli.model_report import facts, report
from seewhy.contract import checksum
from seewhy.contract import constants as contract
from seewhy.runtime.model_file import ModelFile
from support import forked_cases
from support.files.file_damage import DAMAGES
from support.tiny_model import Tiny, set_property
from support.tiny_model_files import pixels

CASES = 2000
NAME = "tiny.onnx"


def save(folder: Path, external: bool) -> list[Path]:
    """Write the tiny model into a folder, with `external` its weights in a second file, and return the paths."""
    path = folder / NAME
    if not external:
        return [Tiny().save(path)]
    model, weights = Tiny().proto(), folder / f"{NAME}.data"
    data = b""
    for tensor in model.graph.initializer:
        if len(tensor.dims) < 2:
            continue
        for key, value in {"location": weights.name, "offset": len(data), "length": len(tensor.raw_data)}.items():
            tensor.external_data.add(key=key, value=str(value))
        data += tensor.raw_data
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
    weights.write_bytes(data)
    set_property(model, "external_data", {"file": weights.name, "sha256": hashlib.sha256(data).hexdigest()})
    path.write_bytes(checksum.seal(model.SerializeToString()))
    return [path, weights]


# Functions that the forked processes run.


def explain_or_refuse(path: Path, verify: bool) -> dict[str, str]:
    """Return {"refused": message} or {"numbers": hash of the attributions for two images}."""
    try:
        forked_cases.stage("read")
        inspect_file(path)
        ModelFile.read(path, verify)
        forked_cases.stage("run")
        results = Explainer(path, threads=1, verify=verify).explain(pixels(2), ["gradcam", "guided-backprop", "cam"])
    except SeewhyError as error:
        return {"refused": str(error)}
    return {"numbers": hashlib.sha256(b"".join(r.attributions.tobytes() for r in results.values())).hexdigest()}


def inspect_file(path: Path) -> None:
    """Build the report of `seewhy inspect` for a model file, damaged or not."""
    model = ModelFile.inspect(path)
    assert "\x1b" not in report(model)
    json.dumps(facts(model))


def load(case: dict[str, Any]) -> dict[str, str]:
    """Damage one of the files with the given seed, or none if the seed is null, and explain images with the model."""
    files = {path.name: path.read_bytes() for path in map(Path, case["files"])}
    before = dict(files)
    kind = "none"
    if case["seed"] is not None:
        generator = random.Random(case["seed"])
        name, kind = generator.choice(sorted(files)), generator.choice(sorted(DAMAGES))
        files[name] = DAMAGES[kind](files[name], generator)
    with tempfile.TemporaryDirectory() as folder:
        for name, data in files.items():
            Path(folder, name).write_bytes(data)
        return {"kind": kind, "same": files == before, **explain_or_refuse(Path(folder, NAME), case["verify"])}


def sweep(folder: Path, external: bool, seeds: range, verify: bool) -> tuple[str, list[forked_cases.Outcome]]:
    """Return the hash of the intact model file's attributions, and the outcomes of the damaged copies."""
    files = [str(path) for path in save(folder, external)]
    cases = [{"files": files, "seed": seed, "verify": verify} for seed in (None, *seeds)]
    intact, *outcomes = forked_cases.run("robustness.test_fuzz_model:load", cases)
    assert intact.succeeded and intact.result["same"], intact
    return intact.result["numbers"], outcomes


def one_line(text: str) -> bool:
    return text.isprintable() and 0 < len(text) < 1000


def seed_ranges(quick: int, cases: int = CASES) -> list[Any]:
    """Return seed ranges: the first `quick` for every test run, the rest for slow tests."""
    return [range(quick), pytest.param(range(quick, cases), marks=pytest.mark.slow)]


@pytest.mark.parametrize("external", [False, True])
@pytest.mark.parametrize("seeds", seed_ranges(70))
def test_damaged_files_are_refused(tmp_path: Path, external: bool, seeds: range) -> None:
    numbers, outcomes = sweep(tmp_path, external, seeds, verify=True)
    for outcome in outcomes:
        assert outcome.succeeded, outcome
        if outcome.result["same"]:
            assert outcome.result["numbers"] == numbers, outcome
        else:
            assert one_line(outcome.result.get("refused", "")), outcome
    refused = Counter(outcome.result["kind"] for outcome in outcomes if "refused" in outcome.result)
    assert set(refused) == set(DAMAGES) and refused.total() > 0.95 * len(seeds), refused


@pytest.mark.slow
@pytest.mark.parametrize("external", [False, True])
def test_damaged_files_that_are_not_verified(tmp_path: Path, external: bool) -> None:
    numbers, outcomes = sweep(tmp_path, external, range(CASES), verify=False)
    for outcome in outcomes:
        if outcome.killed is not None:
            assert outcome.stage == "run", outcome
        else:
            assert outcome.raised is None, outcome.raised
            assert one_line(outcome.result.get("refused", "numbers")), outcome
    wrong = [outcome for outcome in outcomes if outcome.result and outcome.result.get("numbers", numbers) != numbers]
    assert len(wrong) > 50  # the checksum exists to detect these


# Model files with a valid checksum and arbitrary content.

_TEXTS = (
    *(
        "",
        ".",
        "..",
        "../x",
        "/etc/passwd",
        "..\\x",
        "C:\\x",
        "a/b",
        "a\0b",
        "two\nlines",
        "\x1b[2J",
        "\u202e",
        "\ud800",
    ),
    *("CON", "x" * 300, "y" * 200_000, "images", "logits", "activations", NAME, "0" * 64, "softmax", "none", "map"),
)
_NUMBERS = (0, -1, 1, 3, 2**31, 2**63, 10**30, 10**4000, 0.5, -0.0, 1e-320, 1e300, float("nan"), float("inf"))
_OTHERS: tuple[Any, ...] = (None, True, [], {}, [[]], [{}], {"": None}, {"error": "x"}, [1] * 10_000)
_LINES = ("", "{", "[" * 5000, "[" * 100_000, "1" * 5000, "NaN", "1e999", "-", '"', '"\\ud800"', "null", "\0", "tru")


def edit_value(model: onnx.ModelProto, generator: random.Random) -> str:
    """Replace or delete one value inside the JSON of one metadata key."""
    entry = generator.choice([entry for entry in model.metadata_props if entry.key != contract.DIGEST_KEY])
    try:
        value = json.loads(entry.value)
    except ValueError:  # an earlier edit made it invalid
        value = None
    positions: list[tuple[Any, Any]] = []

    def collect(container: Any) -> None:
        for key in list(container) if isinstance(container, dict) else range(len(container)):
            positions.append((container, key))
            if isinstance(container[key], (dict, list)):
                collect(container[key])

    root = [value]
    collect(root)
    container, key = generator.choice(positions)
    if generator.random() < 0.2 and container is not root:
        del container[key]
    else:
        container[key] = generator.choice(generator.choice((_TEXTS, _NUMBERS, _OTHERS)))
    entry.value = json.dumps(root[0])
    return f"{entry.key}: {key}"


def edit_text(model: onnx.ModelProto, generator: random.Random) -> str:
    """Replace the text of one metadata entry, rename its key, repeat the key, or overwrite some of its characters."""
    entry = generator.choice([entry for entry in model.metadata_props if entry.key != contract.DIGEST_KEY])
    choice = generator.randrange(4)
    if choice == 0:
        entry.value = generator.choice(_LINES)
    elif choice == 1:
        entry.key = generator.choice(_TEXTS).replace("\ud800", "") + entry.key[: generator.randrange(len(entry.key))]
    elif choice == 2:
        model.metadata_props.add(key=entry.key, value=generator.choice(_LINES))
    else:
        start = generator.randrange(len(entry.value))
        entry.value = entry.value[:start] + generator.choice(_LINES)[:9] + entry.value[start + generator.randrange(9) :]
    return f"text of {entry.key[:30]}"


def edit_files(model: onnx.ModelProto, generator: random.Random) -> str:
    """Refer to other files for the weights."""
    name = generator.choice(_TEXTS).replace("\ud800", "")
    if generator.random() < 0.7:
        set_property(model, "external_data", {"file": generator.choice((name, f"{NAME}.data")), "sha256": "0f" * 32})
    if generator.random() < 0.7:
        tensor = generator.choice(model.graph.initializer)
        if generator.random() < 0.8:
            tensor.ClearField("raw_data")
        del tensor.external_data[:]
        for key in ("location", "offset", "length", name):
            if generator.random() < 0.8:
                value = name if key == "location" else str(generator.choice(_NUMBERS))
                tensor.external_data.add(key=key, value=generator.choice((value, f"{NAME}.data")))
        tensor.data_location = TensorProto.EXTERNAL
    return "files"


def edit_shape(model: onnx.ModelProto, generator: random.Random) -> str:
    """Change the shape or dtype of an input, an output or a weight."""
    lengths = (-(2**63), -1, 0, 1, 5, 2**31, 2**62)
    if generator.random() < 0.5:
        tensor = generator.choice(model.graph.initializer)
        choice = generator.randrange(3)
        if choice == 0:
            tensor.data_type = generator.randrange(-1, 30)
        elif choice == 1 or not tensor.dims:
            tensor.dims.append(generator.choice(lengths))
        else:
            tensor.dims[generator.randrange(len(tensor.dims))] = generator.choice(lengths)
        return f"weight {tensor.name}"
    value = generator.choice((*model.graph.input, *model.graph.output))
    found = value.type.tensor_type
    choice = generator.randrange(5)
    if choice == 0:
        found.elem_type = generator.randrange(-1, 30)
    elif choice == 1:
        value.ClearField("type")
    elif choice == 2:
        found.ClearField("shape")
    elif choice == 3:
        found.shape.dim.add(dim_param=generator.choice(_TEXTS).replace("\ud800", ""))
    else:
        found.shape.dim[generator.randrange(len(found.shape.dim))].dim_value = generator.choice(lengths)
    return f"shape of {value.name}"


def edit_name(model: onnx.ModelProto, generator: random.Random) -> str:
    """Change a name of a value, operator, domain or attribute, remove a node, or change a version."""
    name = generator.choice(_TEXTS).replace("\ud800", "")
    graph = model.graph
    node = generator.choice(graph.node)
    choice = generator.randrange(9)
    if choice == 0:
        generator.choice((*graph.input, *graph.output, *graph.initializer)).name = name
    elif choice == 1 and node.input:
        node.input[generator.randrange(len(node.input))] = generator.choice((name, "c1", "logits", "gradients"))
    elif choice == 2:
        node.output[generator.randrange(len(node.output))] = generator.choice((name, "images", "logits", "zero"))
    elif choice == 3:
        node.op_type = generator.choice((name, "Relu", "Loop", "If", "Scan", "Shape", "Concat"))
    elif choice == 4:
        node.domain = name
    elif choice == 5:
        node.attribute.add(name=name, type=generator.randrange(14), i=generator.choice((0, -1, 2**62)))
    elif choice == 6:
        graph.node.remove(node)
    elif choice == 7:
        model.opset_import[0].version = generator.choice((-1, 0, 1, 7, 99, 2**62))
    else:
        model.ir_version = generator.choice((-1, 0, 1, 99, 2**62))
    return f"name in {node.name}"


EDITS = (edit_value, edit_value, edit_value, edit_text, edit_files, edit_shape, edit_name)


def load_edited(case: dict[str, Any]) -> dict[str, Any]:
    """Edit a model file, write a valid checksum, and use it as a user would."""
    generator = random.Random(case["seed"])
    model = Tiny().proto()
    edited = " and ".join(generator.choice(EDITS)(model, generator) for _ in range(generator.choice((1, 1, 1, 2))))
    # json.dumps escapes a lone surrogate, so the file holds it as ASCII.
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "in", NAME)
        path.parent.mkdir()
        try:
            path.write_bytes(checksum.seal(model.SerializeToString()))
        except ValueError:  # the key of the digest was edited
            path.write_bytes(model.SerializeToString())
        path.with_name(f"{NAME}.data").write_bytes(bytes(4096))
        Path(folder, "x").write_bytes(bytes(4096))
        Image.fromarray(np.arange(30 * 40 * 3).astype(np.uint8).reshape(30, 40, 3)).save(Path(folder, "image.png"))
        before = snapshot(Path(folder))
        written: list[str] = []
        try:
            forked_cases.stage("read")
            inspect_file(path)
            explainer = Explainer(path, threads=1)
            forked_cases.stage("run")
            methods = explainer.methods if case["seed"] % 5 == 0 else explainer.methods[:2]  # all methods take a second
            settings = Settings(methods, top=1, raw=True, canvas="original")
            explain_folder(explainer, Path(folder, "image.png"), Path(folder, "out"), settings)
            [line] = Path(folder, "out", "manifest.jsonl").read_text().splitlines()
            error = json.loads(line).get("error")
            written = sorted(found.name for found in Path(folder, "out").iterdir())
        except SeewhyError as raised:
            error = str(raised)
        return {"edited": edited, "error": error, "written": written, "same": before == snapshot(Path(folder))}


def snapshot(folder: Path) -> list[tuple[str, bytes]]:
    """Return (path, content) of all files below a folder, except those in "out"."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.relative_to(folder).parts[0] != "out")
    return [(str(path.relative_to(folder)), path.read_bytes()) for path in files]


# Each case that loads explains an image, which takes 0.2 seconds.
@pytest.mark.parametrize("seeds", seed_ranges(40, 500))
def test_edited_files_with_a_valid_checksum(seeds: range) -> None:
    outcomes = forked_cases.run("robustness.test_fuzz_model:load_edited", [{"seed": seed} for seed in seeds])
    for outcome in outcomes:
        assert outcome.killed is None and outcome.raised is None, outcome
        # onnxruntime logs an integer overflow in a weight's shape at every log level.
        assert all("[E:onnxruntime" in line or "nmemb=" in line for line in outcome.printed.splitlines()), outcome
        assert outcome.result["same"], outcome
        assert one_line(outcome.result["error"] or "none"), outcome
    worked = [outcome.result for outcome in outcomes if outcome.result["error"] is None]
    assert len(worked) > len(seeds) // 20
    for result in worked:
        assert sum(name.startswith("image.") for name in result["written"]) > 2, result
        assert all(name.startswith(("image.", "manifest.jsonl", "run.json", ".seewhy")) for name in result["written"])
