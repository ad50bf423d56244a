"""Small networks that cover the ways in which people write classifiers.

Every network is a convolution, the part under test, another convolution and a head, so the gradient passes through the
whole part. `TABLES` holds the parts that must export. `REFUSED` holds the networks that the exporter must refuse, each
with the reason that the error gives.
"""

from __future__ import annotations

from support.exporting.module_battery.activations import ACTIVATIONS
from support.exporting.module_battery.convolutions import CONVOLUTIONS
from support.exporting.module_battery.networks import CHANNELS, SIZE, network
from support.exporting.module_battery.pools_and_norms import NORMS, POOLS
from support.exporting.module_battery.refusals import REFUSED
from support.exporting.module_battery.structure import STRUCTURE

__all__ = ["CHANNELS", "HEAVY", "RECTIFIERS", "REFUSED", "SIZE", "TABLES", "network"]

TABLES = {
    "activations": ACTIVATIONS,
    "convolutions": CONVOLUTIONS,
    "pools": POOLS,
    "norms": NORMS,
    "structure": STRUCTURE,
}

# These parts take ten seconds or more each, because of unrolled loops and large decompositions.
HEAVY = {"LSTM", "GRU", "grid_sample, bicubic", "grid_sample, reflection", "bicubic", "bicubic, corners aligned"}

RECTIFIERS: dict[str, dict[str, int]] = {
    "relu function": {"relu": 1},
    "relu in place": {"relu": 1},
    "relu_ method": {"relu": 1},
    "relu reused": {"relu": 3},
    "relu6": {"relu6": 1},
    "clamp(min=0)": {"clamp": 1},
    "clamp(0, 6)": {"clamp": 1},
    "clamp_min": {"clamp": 1},
    "clamp_ in place": {"clamp": 1},
    "clamp by tensors": {"clamp": 1},
    "maximum with zeros": {"maximum": 1},
    "maximum with a constant": {"maximum": 1},
    "maximum with a buffer": {"maximum": 1},
    "max with new_zeros": {"maximum": 1},
    "where(x > 0, x, 0)": {"where": 1},
    "where(x > 0, x, zeros)": {"where": 1},
    "where(x >= 0, x, 0)": {"where": 1},
    "where(x < 0, 0, x)": {"where": 1},
    "x * (x > 0)": {"mask": 1},
    "x * (x > 0).float()": {"mask": 1},
    "threshold": {"threshold": 1},
    "leaky_relu": {"leaky_relu": 1},
    "prelu shared": {"prelu": 1},
    "prelu by channel": {"prelu": 1},
    "rrelu": {"leaky_relu": 1},
    "hardtanh from 0": {"hardtanh": 1},
    "squared relu": {"relu": 1},
    "conv1d": {"relu": 1},
    "conv3d": {"relu": 1},
    "LPPool": {"relu": 1},
    "LPPool of norm 1.5": {"relu": 1},
    "concatenation": {"relu": 1},
    "squeeze-excitation": {"relu": 1},
    "nn.TransformerEncoderLayer": {"relu": 1},
    "nn.TransformerEncoderLayer, sequence first": {"relu": 1},
    "checkpoint": {"relu": 1},
    "autocast off": {"relu": 1},
}
"""Rectifiers that the export of each part must report. Parts that are not listed must report none."""
