"""Tests of docs/how-to/serve-explanations.md: the service runs as printed and returns the documented statuses."""

from __future__ import annotations

import asyncio
import io
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from PIL import Image

from seewhy import Explainer
from support.markdown import blocks, table
from support.repository import ROOT

pytest.importorskip("fastapi")

PAGE = "docs/how-to/serve-explanations.md"


@pytest.fixture
def service(model_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Return the module of the page, which serves the tiny model."""
    (tmp_path / "demo").mkdir()
    shutil.copy(model_path, tmp_path / "demo" / "efficientnet_lite0.onnx")
    monkeypatch.chdir(tmp_path)
    (block,) = blocks(PAGE, "python")
    module = ModuleType("service")
    monkeypatch.setitem(sys.modules, "service", module)  # FastAPI looks up annotations there
    exec(block.code, module.__dict__)
    return module


def post(
    service: ModuleType, body: bytes, query: str = "", kind: str = "image/png", part: int = 1 << 16
) -> tuple[int, dict[str, str], bytes]:
    """Send a request to the application by its ASGI interface, and return status, headers and body of the response."""
    parts = [body[start : start + part] for start in range(0, len(body), part)] or [b""]
    events = [{"type": "http.request", "body": each, "more_body": True} for each in parts]
    events[-1]["more_body"] = False
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return events.pop(0) if events else {"type": "http.disconnect"}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "POST",
        "scheme": "http",
        "path": "/explain",
        "raw_path": b"/explain",
        "query_string": query.encode(),
        "root_path": "",
        "headers": [(b"content-type", kind.encode())],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 80),
    }
    asyncio.run(service.app(scope, receive, send))
    headers = {key.decode(): value.decode() for key, value in sent[0]["headers"]}
    return sent[0]["status"], headers, b"".join(each.get("body", b"") for each in sent[1:])


@pytest.fixture
def image(make_image: Callable[..., Image.Image]) -> bytes:
    file = io.BytesIO()
    make_image().save(file, "PNG")
    return file.getvalue()


def test_an_overlay(service: ModuleType, image: bytes, model_path: Path) -> None:
    status, headers, body = post(service, image, "target=3")
    assert (status, headers["content-type"]) == (200, "image/png")
    (expected,) = Explainer(model_path).explain(image, "gradcam", target=3).overlays()
    with Image.open(io.BytesIO(body)) as found:
        assert np.array_equal(np.asarray(found), np.asarray(expected))
    assert post(service, image, "target=espresso")[0] == post(service, image)[0] == 200


@pytest.mark.parametrize(
    ("change", "query", "kind", "status", "words"),
    [
        (lambda content: content[:100], "", "image/png", 400, "image"),
        (lambda content: b"", "", "image/png", 400, "empty"),
        (lambda content: b"8BPS" + content, "", "image/vnd.adobe.photoshop", 400, "not an image in a supported format"),
        (lambda content: content + bytes(20 * 2**20), "", "image/png", 413, "more than 20971520 bytes"),
        (lambda content: content, "", "application/json", 415, "send the bytes of an image"),
        (lambda content: content, "target=6", "image/png", 422, "6"),
        (lambda content: content, "target=lorry", "image/png", 422, "lorry"),
    ],
)
def test_statuses(
    change: Callable[[bytes], bytes],
    query: str,
    kind: str,
    status: int,
    words: str,
    service: ModuleType,
    image: bytes,
    tmp_path: Path,
) -> None:
    found, _, body = post(service, change(image), query, kind)
    detail = json.loads(body)["detail"]
    assert found == status and words in detail
    assert "demo/" not in detail and str(tmp_path) not in detail
    assert f"{status}" in [row[0] for row in table(PAGE, "status")]
    assert post(service, image)[0] == 200  # the slot is free again


def test_a_missing_extra(service: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pi_heif", None)
    heic = (ROOT / "tests" / "data" / "heif" / "rgb.heic").read_bytes()
    assert post(service, heic, kind="image/heic")[0] == 415


def test_overload(service: ModuleType, image: bytes) -> None:
    for _ in range(8):
        assert service.slots.acquire(blocking=False)
    status, headers, body = post(service, image)
    assert (status, headers["retry-after"]) == (503, "1")
    # The body of a refused request is not read, whatever its size.
    assert post(service, bytes(20 * 2**20 + 1))[2] == body
    service.slots.release()
    assert post(service, image)[0] == 200


def test_errors_of_the_graph_do_not_show_the_folder_of_the_model(tmp_path: Path) -> None:
    from seewhy import MethodError, NonFiniteError
    from support.tiny_model import Tiny

    weights = Tiny().weights()
    weights["fc.bias"][0] = np.nan
    from seewhy.contract import checksum

    path = tmp_path / "secret" / "model.onnx"
    path.parent.mkdir()
    path.write_bytes(checksum.seal(Tiny().proto(weights).SerializeToString()))
    explainer = Explainer(path)
    with pytest.raises(NonFiniteError, match="model.onnx: logits of image 0") as caught:
        explainer.explain(np.zeros((12, 16, 3), np.uint8))
    assert "secret" not in str(caught.value)
    bare = Explainer(Tiny(outputs=("logits",)).save(path))
    for name in ("gradcam", "cam", "gradcm"):
        with pytest.raises(MethodError) as refused:
            bare.explain(np.zeros((12, 16, 3), np.uint8), name)
        assert "secret" not in str(refused.value)
