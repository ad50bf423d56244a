"""Multi-pass methods of Captum, pytorch-grad-cam and torchcam, for one image and one class."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import numpy as np
from numpy.typing import NDArray

from seewhy import Explanation
from seewhy.methods.smoothgrad import add_noise


@dataclass(frozen=True)
class Tool:
    """A method of another tool."""

    name: str
    run: Callable[[int], NDArray[Any]]
    """Function that explains the image with a batch size: attributions (Cin,H,W), or a heatmap (H,W)."""
    batch_sizes: tuple[int, ...]
    agreement: Callable[[Explanation], str]
    """Function that compares an explanation by SeeWhy with the tool's."""


def tools(method: str, module: Any, layer: str, pixels: NDArray[Any], target: int) -> list[Tool]:
    """Return all tools that have a method.

    Args:
        method: Name of the method in SeeWhy.
        module: The network, in evaluation mode.
        layer: Name of the target layer.
        pixels: Preprocessed image, float32 of shape (1, Cin, H, W).
        target: Class index.
    """
    import torch

    image = torch.from_numpy(pixels)
    return [make(module, layer, image, target) for make in _TOOLS[method] if make is not None]


def _smoothgrad(module: Any, layer: str, image: Any, target: int) -> Tool:
    import captum.attr
    import torch

    samples, share = 25, 0.15
    method = captum.attr.NoiseTunnel(captum.attr.Saliency(module))
    deviation = share * float(image.max() - image.min())

    def run(batch_size: int) -> NDArray[Any]:
        found = method.attribute(
            image,
            nt_type="smoothgrad",
            nt_samples=samples,
            nt_samples_batch_size=batch_size,
            stdevs=deviation,
            target=target,
            abs=False,
        )
        return found[0].detach().numpy()

    def agreement(ours: Explanation) -> str:
        """Replace PyTorch's generator by ours."""
        zeros = np.zeros(image.shape[1:], np.float32)
        drawn = iter(add_noise(zeros, 1, 0, sample) for sample in range(samples))
        real = torch.normal

        def normal(mean: Any, std: Any) -> Any:
            return std * torch.from_numpy(np.stack([next(drawn) for _ in range(len(std))]))

        torch.normal = normal
        try:
            return _error(ours.attributions[0], run(5))
        finally:
            torch.normal = real

    return Tool("Captum NoiseTunnel(Saliency)", run, (1, 5), agreement)


def _integrated_gradients(module: Any, layer: str, image: Any, target: int) -> Tool:
    import captum.attr

    method = captum.attr.IntegratedGradients(module)

    def run(batch_size: int) -> NDArray[Any]:
        return method.attribute(image, target=target, internal_batch_size=batch_size)[0].detach().numpy()

    return Tool("Captum IntegratedGradients", run, (1, 10), lambda ours: _error(ours.attributions[0], run(10)))


def _grad_cam(name: str) -> Callable[[Any, str, Any, int], Tool]:
    def make(module: Any, layer: str, image: Any, target: int) -> Tool:
        import pytorch_grad_cam
        from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

        cam = getattr(pytorch_grad_cam, name)(model=module, target_layers=[module.get_submodule(layer)])

        def run(batch_size: int) -> NDArray[Any]:
            cam.batch_size = batch_size
            found: NDArray[Any] = cam(input_tensor=image, targets=[ClassifierOutputTarget(target)])[0]
            return found

        return Tool(f"pytorch-grad-cam {name}", run, (16,), lambda ours: _correlation(ours.heatmaps[0], run(16)))

    return make


def _torchcam_scorecam(module: Any, layer: str, image: Any, target: int) -> Tool:
    import torch
    from torchcam.methods import ScoreCAM

    def run(batch_size: int) -> NDArray[Any]:
        with torch.no_grad(), ScoreCAM(module, layer, batch_size=batch_size) as cam:
            [found] = cam(target, module(image))
            large = torch.nn.functional.interpolate(found[None], image.shape[2:], mode="bilinear")
        return large[0, 0].numpy()

    return Tool("torchcam ScoreCAM", run, (16,), lambda ours: _correlation(ours.heatmaps[0], run(16)))


_TOOLS: dict[str, tuple[Callable[[Any, str, Any, int], Tool] | None, ...]] = {
    "smoothgrad": (_smoothgrad,),
    "integrated-gradients": (_integrated_gradients,),
    "scorecam": (_grad_cam("ScoreCAM"), _torchcam_scorecam if find_spec("torchcam") else None),
    "ablationcam": (_grad_cam("AblationCAM"),),
}


def _error(ours: NDArray[Any], theirs: NDArray[Any]) -> str:
    return f"relative error {np.linalg.norm(ours - theirs) / np.linalg.norm(theirs):.1e}"


def _correlation(ours: NDArray[Any], theirs: NDArray[Any]) -> str:
    return f"correlation {np.corrcoef(ours.ravel(), theirs.ravel())[0, 1]:.4f}"
