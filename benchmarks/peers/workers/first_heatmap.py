"""Compute one heatmap with one tool in a new process, as a short script of a user would.

    python first_heatmap.py TOOL MODEL_FOLDER IMAGE THREADS

Each function imports the tool and returns a heatmap of shape (224, 224); `forward` returns logits (1, 1000). The last
line printed is JSON with the peak memory of the process in bytes and the shape of the result. The parent process
measures the time.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from peak_memory import peak

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def seewhy(folder: Path, image_path: str, threads: int) -> Any:
    import seewhy

    return seewhy.Explainer(folder / "seewhy.onnx", threads=threads).explain(image_path).heatmaps[0]


def forward(folder: Path, image_path: str, threads: int) -> Any:
    import numpy as np
    import onnxruntime
    from PIL import Image

    image = Image.open(image_path).convert("RGB").resize((341, 256), Image.Resampling.BILINEAR)
    crop = np.asarray(image.crop((58, 16, 282, 240)))
    x = np.ascontiguousarray((((crop / 255 - MEAN) / STD).astype(np.float32)).transpose(2, 0, 1)[None])
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(folder / "forward.onnx", options, providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: x})[0]


def grad_cam(folder: Path, image_path: str, threads: int) -> Any:
    module, layer, x = _torch(folder, image_path, threads)
    from pytorch_grad_cam import GradCAM

    return GradCAM(model=module, target_layers=[layer])(input_tensor=x, targets=None)[0]


def torchcam(folder: Path, image_path: str, threads: int) -> Any:
    module, layer, x = _torch(folder, image_path, threads)
    from torch.nn.functional import interpolate
    from torchcam.methods import GradCAM

    extractor = GradCAM(module, layer)
    scores = module(x)
    cam = extractor(scores.squeeze(0).argmax().item(), scores)[0]
    return interpolate(cam[None], x.shape[-2:], mode="bilinear")[0, 0].numpy()


def captum(folder: Path, image_path: str, threads: int) -> Any:
    module, layer, x = _torch(folder, image_path, threads)
    import torch
    from captum.attr import LayerAttribution, LayerGradCam

    with torch.no_grad():
        target = module(x).argmax(1)
    maps = LayerGradCam(module, layer).attribute(x, target=target, relu_attributions=True)
    return LayerAttribution.interpolate(maps, x.shape[-2:], "bilinear")[0, 0].detach().numpy()


def openvino_xai(folder: Path, image_path: str, threads: int) -> Any:
    import cv2
    import numpy as np
    import openvino
    from openvino_tool import settings
    from openvino_xai_tool import heatmap, with_maps

    image = cv2.cvtColor(cv2.imread(image_path), cv2.COLOR_BGR2RGB)
    image = cv2.resize(image, (341, 256), interpolation=cv2.INTER_AREA)[16:240, 58:282]
    x = np.ascontiguousarray((((image / 255 - MEAN) / STD).astype(np.float32)).transpose(2, 0, 1)[None])
    core = openvino.Core()
    model = core.read_model(folder / "forward.onnx")
    model.reshape(list(x.shape))
    outputs = core.compile_model(with_maps(model), "CPU", settings(threads))(x)
    return heatmap(outputs, int(outputs[0].argmax()), (224, 224))


def _torch(folder: Path, image_path: str, threads: int) -> Any:
    """Return the module, its target layer, and the image as a tensor of shape (1, 3, 224, 224)."""
    from PIL import Image
    from tool_job import Task
    from torch_models import import_torchvision, layer, network

    import_torchvision()
    from torchvision import transforms

    task = Task(folder, 1, threads)
    module = network(task)
    steps = [transforms.Resize(256), transforms.CenterCrop(224), transforms.ToTensor(), transforms.Normalize(MEAN, STD)]
    return module, layer(task, module), transforms.Compose(steps)(Image.open(image_path).convert("RGB"))[None]


TOOLS = {
    "forward": forward,
    "seewhy": seewhy,
    "grad-cam": grad_cam,
    "torchcam": torchcam,
    "captum": captum,
    "openvino_xai": openvino_xai,
}


if __name__ == "__main__":
    found = TOOLS[sys.argv[1]](Path(sys.argv[2]), sys.argv[3], int(sys.argv[4]))
    print(json.dumps({"peak": peak(), "shape": list(found.shape)}), flush=True)
