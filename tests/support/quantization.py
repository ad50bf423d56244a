"""An example of the metadata of a quantised file."""

from __future__ import annotations

from seewhy.contract.quantization import Drift, Quantization, Speed, Trade

DRIFT = Drift(
    images=96,
    constant_maps=1,
    correlation_median=0.9974,
    correlation_p5=0.9861,
    correlation_worst=0.9702,
    top1_agreement=0.9375,
    confident_images=61,
    top1_agreement_confident=0.9836,
    logits_error=0.061,
    speed=(Speed(1, 41.0, 14.2), Speed(8, 39.5, 11.0)),
    threads=2,
    cpu_flags=("avx2", "avx512f", "avx512_vnni"),
)

QUANTIZATION = Quantization(
    float32_file="tiny.onnx",
    float32_sha256="ab" * 32,
    weight_type="int8",
    activation_type="uint8",
    calibration="minmax",
    calibration_images=64,
    int8_layers=2,
    kept_float=("conv1",),
    drift=DRIFT,
    trades=(Trade(0, 0.996, 0.966, 3.13), Trade(1, 0.9974, 0.9861, 2.89)),
)
