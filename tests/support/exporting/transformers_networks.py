"""Small image classifiers of the library transformers, one of each architecture that takes plain images."""

from __future__ import annotations

from typing import Any

from torch import nn

from seewhy_export.sources.torchvision_import import import_torchvision

CLASS_COUNT = 7

_VIT = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "image_size": 32, "patch_size": 8}
_TOWER = {**_VIT, "intermediate_size": 64}
_TEXT = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4, "intermediate_size": 32}
_TWO_TOWERS = {"vision_config": _TOWER, "text_config": {**_TEXT, "bos_token_id": 0, "eos_token_id": 1}}
_STAGES = {"hidden_sizes": [16, 32, 48, 64], "depths": [1, 1, 2, 1]}
_CONVOLUTIONS = {"embedding_size": 16, **_STAGES}
_WINDOWS = {"image_size": 64, "embed_dim": 16, "depths": [1, 1, 2], "num_heads": [2, 2, 4], "window_size": 4}
_PYRAMID = {"image_size": 64, "hidden_sizes": [16, 32, 40, 64], "depths": [1, 1, 1, 1]}

CONFIGS: dict[str, dict[str, Any]] = {
    "beit": _TOWER,
    "bit": {**_CONVOLUTIONS, "hidden_sizes": [32, 32, 64, 64], "num_groups": 4},
    "clip": _TWO_TOWERS,
    "convnext": _STAGES,
    "convnextv2": _STAGES,
    "cvt": {"embed_dim": [16, 32, 48], "num_heads": [1, 2, 3], "depth": [1, 2, 3]},
    "data2vec-vision": _TOWER,
    "deit": _TOWER,
    "dinov2": {**_VIT, "image_size": 28, "patch_size": 7},
    "dinov2_with_registers": {**_VIT, "image_size": 28, "patch_size": 7},
    "donut-swin": _WINDOWS,
    "efficientnet": {"image_size": 64, "width_coefficient": 0.25, "depth_coefficient": 0.3, "hidden_dim": 320},
    "focalnet": {
        "image_size": 64,
        "embed_dim": 16,
        "depths": [1, 1, 2],
        "focal_levels": [2, 2, 2],
        "focal_windows": [3, 3, 3],
    },
    "hgnet_v2": {
        "stem_channels": [3, 8, 16],
        "stage_in_channels": [16, 32, 48, 64],
        "stage_mid_channels": [8, 16, 16, 24],
        "stage_out_channels": [32, 48, 64, 96],
        "stage_num_blocks": [1, 1, 1, 1],
        "stage_numb_of_layers": [2, 2, 2, 2],
        "hidden_sizes": [32, 48, 64, 96],
        "depths": [1, 1, 1, 1],
    },
    "hiera": {
        "image_size": [64, 64],
        "embed_dim": 16,
        "depths": [1, 1, 2, 1],
        "num_heads": [1, 2, 4, 8],
        "masked_unit_size": [8, 8],
    },
    "ijepa": _TOWER,
    "levit": {
        "image_size": 64,
        "hidden_sizes": [32, 48, 64],
        "num_attention_heads": [2, 3, 4],
        "depths": [1, 1, 1],
        "key_dim": [8, 8, 8],
    },
    "metaclip_2": _TWO_TOWERS,
    "mobilenet_v1": {"image_size": 64, "depth_multiplier": 0.25},
    "mobilenet_v2": {"image_size": 64, "depth_multiplier": 0.25},
    "mobilevit": {"image_size": 64, "hidden_sizes": [24, 32, 40], "neck_hidden_sizes": [8, 8, 16, 24, 32, 40, 64]},
    "mobilevitv2": {"image_size": 64, "width_multiplier": 0.25},
    "poolformer": {"hidden_sizes": [16, 32, 40, 64], "depths": [1, 1, 1, 1]},
    "pp_lcnet": {"scale": 0.25, "class_expand": 64},
    "pvt": _PYRAMID,
    "pvt_v2": _PYRAMID,
    "regnet": {**_CONVOLUTIONS, "groups_width": 8},
    "resnet": {**_CONVOLUTIONS, "layer_type": "basic"},
    "segformer": {**_PYRAMID, "decoder_hidden_size": 32},
    "siglip": _TWO_TOWERS,
    "swiftformer": {"image_size": 64, "depths": [1, 1, 2, 1], "embed_dims": [16, 32, 48, 64]},
    "swin": _WINDOWS,
    "swinv2": _WINDOWS,
    "textnet": {"image_size": [64, 64]},
    "vit": _TOWER,
    "vit_msn": _TOWER,
}
"""Arguments of each architecture's configuration, by its name in transformers."""


def transformers_network(name: str) -> tuple[nn.Module, tuple[int, int]]:
    """Return a classifier with the initial weights of transformers, and the (H, W) of its input in pixels."""
    import_torchvision()
    from transformers import AutoConfig, AutoModelForImageClassification

    config = AutoConfig.for_model(name, num_labels=CLASS_COUNT, **CONFIGS[name])
    config.architectures = []  # DeiT and LeViT have several classifiers, among which this list chooses
    size = getattr(getattr(config, "vision_config", config), "image_size", 64)
    size = 64 if isinstance(size, int) and size > 64 else size
    network = AutoModelForImageClassification.from_config(config)
    return network.eval(), tuple(size) if isinstance(size, (list, tuple)) else (size, size)
