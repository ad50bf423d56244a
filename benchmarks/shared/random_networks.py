"""Classifiers with the random weights of the exporter's tests, which leave no branch inactive."""

from __future__ import annotations

import sys

import torch
from torch import Tensor, nn

from benchmarks import ROOT

sys.path.insert(0, str(ROOT / "tests"))

from support.exporting import transformers_networks
from support.exporting.networks import live_weights, set_batch_norm_statistics, torchvision_network


def live_network(spec: str) -> tuple[nn.Module, tuple[int, int]]:
    """Return the network `SOURCE:NAME` in evaluation mode, and its default image size."""
    source, _, name = spec.partition(":")
    if source == "torchvision":
        return torchvision_network(name), (299, 299) if name == "inception_v3" else (224, 224)
    if source == "transformers":
        network, image_size = transformers_networks.transformers_network(name)
        return live_weights(network).eval(), image_size
    import timm

    network = timm.create_model(name, pretrained=False)
    return live_weights(network).eval(), tuple(network.pretrained_cfg["input_size"][1:])


def calibrated_network(spec: str) -> tuple[nn.Module, tuple[int, int]]:
    """Return the same network and size, with batch norm statistics that fit the weights, as after training."""
    network, image_size = live_network(spec)
    return set_batch_norm_statistics(network, noise_images(8, image_size)), image_size


def noise_images(count: int, image_size: tuple[int, int]) -> Tensor:
    """Return images (count, 3, H, W) that are sums of noise at several scales, each with a random contrast."""
    generator = torch.Generator().manual_seed(0)
    images = torch.zeros(count, 3, *image_size)
    for size in (2, 5, 12, 30, 75, 180):
        coarse = torch.randn(count, 3, size, size, generator=generator)
        contrast = 2 * torch.rand(count, 1, 1, 1, generator=generator)
        images += contrast * torch.nn.functional.interpolate(coarse, image_size, mode="bilinear")
    return images
