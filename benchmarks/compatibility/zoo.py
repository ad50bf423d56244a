"""Export classifiers of torchvision, timm and transformers, and write docs/reference/models.md.

These are all of torchvision's, a member of each timm family, and small configurations of transformers' architectures.

    python benchmarks/compatibility/zoo.py                 export all networks again (hours on two cores)
    python benchmarks/compatibility/zoo.py --missing       export networks that benchmarks/results/zoo.json lacks
    python benchmarks/compatibility/zoo.py --only swin     export networks whose name contains this
    python benchmarks/compatibility/zoo.py --table         only write the page from the stored results

Each network has random weights that leave no branch inactive (tests/support/exporting/networks.py). `export` verifies
the model file: it compares onnxruntime with PyTorch's autograd in float64.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks import RESULTS, ROOT
from benchmarks.compatibility.zoo_page import SOURCES, table
from benchmarks.shared import json_files
from benchmarks.shared.child_processes import last_line
from benchmarks.shared.machine_facts import versions
from benchmarks.shared.random_networks import calibrated_network, transformers_networks

FILE = RESULTS / "zoo.json"
TABLE = ROOT / "docs" / "reference" / "models.md"
# Maximum number of networks per process, and the time limit of a process in seconds.
GROUP_SIZE, SECONDS = 6, 7200
PACKAGES = ("seewhy", "torch", "torchvision", "timm", "transformers", "onnxruntime", "onnxscript")

# One small member of each timm family.
TIMM = """
    beit_base_patch16_224 botnet26t_256 cait_xxs24_224 coat_lite_tiny coatnet_pico_rw_224 convmixer_768_32 convnext_atto
    convnextv2_atto crossvit_tiny_240 cs3darknet_s cspresnet50 darknet53 davit_tiny deit_tiny_distilled_patch16_224
    deit_tiny_patch16_224 densenetblur121d dla46_c dpn48b eca_nfnet_l0 edgenext_xx_small efficientformer_l1
    efficientformerv2_s0 efficientnet_b0 efficientvit_b0 efficientvit_m0 ese_vovnet19b_slim eva02_tiny_patch14_224
    fastvit_t8 focalnet_tiny_srf gcvit_xxtiny ghostnet_050 ghostnetv2_100 gmlp_ti16_224 hardcorenas_a hgnetv2_b0
    hrnet_w18_small inception_next_atto inception_resnet_v2 inception_v4 lcnet_050 legacy_xception levit_128s
    maxvit_pico_rw_256 mixer_s32_224 mixnet_s mobilenetv3_small_050 mobilenetv4_conv_small mobileone_s0 mobilevit_xxs
    mobilevitv2_050 mvitv2_tiny nf_resnet26 pit_ti_224 poolformer_s12 pvt_v2_b0 regnety_002 repghostnet_050 repvgg_a0
    repvit_m0_9 res2net50_14w_8s resmlp_12_224 resnest14d resnet10t resnetv2_50 rexnet_100 selecsls42b seresnet50
    shvit_s1 skresnet18 starnet_s050 swiftformer_xs swin_tiny_patch4_window7_224 swinv2_tiny_window8_256
    tf_efficientnetv2_b0 tiny_vit_5m_224 tinynet_e tresnet_m twins_svt_small visformer_tiny vit_tiny_patch16_224
    vit_tiny_r_s16_p8_224 volo_d1_224 xception41 xcit_nano_12_p8_224
""".split()


def specs() -> list[str]:
    """Return the names of all networks, as `SOURCE:NAME`."""
    from seewhy_export.sources.torchvision_import import import_torchvision

    models = import_torchvision().models
    names = {
        "torchvision": models.list_models(module=models),
        "timm": TIMM,
        "transformers": transformers_networks.CONFIGS,
    }
    return [f"{source}:{name}" for source in SOURCES for name in names[source]]


def export_one(spec: str) -> dict[str, Any]:
    """Export one network in this process and return its record."""
    import torch

    from seewhy.errors import SeewhyError
    from seewhy_export import export

    torch.set_num_threads(1)
    module, image_size = calibrated_network(spec)
    parameters = sum(parameter.numel() for parameter in module.parameters())
    record: dict[str, Any] = {"parameters": parameters, "image_size": image_size, "versions": versions(*PACKAGES)}
    with tempfile.TemporaryDirectory() as folder:
        try:
            report = export(module, Path(folder) / "model.onnx", image_size=image_size, channels=3)
        except SeewhyError as error:
            return {**record, "refused": str(error)}
    return {
        **record,
        "layer": report.layer,
        "activations": report.activations,
        "form": report.form,
        "rectifiers": dict(report.rectifiers.kinds),
        "guided": report.rectifiers.guided,
        "smooth": dict(report.rectifiers.smooth),
        "bytes": report.size,
        "seconds": round(report.seconds, 1),
        "parity": report.parity,
        "messages": list(report.messages),
    }


def export_several(selected: list[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Export the networks in child processes and yield the records.

    Several networks share a process, which saves imports. A crash fails only the network that caused it.
    """
    # Use one thread, because on a busy machine PyTorch's threads wait for each other.
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    remaining = list(selected)
    while remaining:
        group, remaining = remaining[:GROUP_SIZE], remaining[GROUP_SIZE:]
        command = [sys.executable, __file__, "--several", *group]
        with (
            tempfile.TemporaryFile("w+") as errors,
            subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=errors, text=True) as process,
        ):
            assert process.stdout is not None
            timer = threading.Timer(SECONDS, process.kill)
            timer.start()
            for line in process.stdout:
                if line.startswith("{") and group:
                    yield group.pop(0), json.loads(line)
            process.wait()
            timer.cancel()
            # A process that fails after its last network has done all its work.
            if group:
                errors.seek(0)
                yield group.pop(0), {"failed": f"exit status {process.returncode}: {last_line(errors.read())}"}
            remaining = group + remaining


def read_results() -> dict[str, dict[str, Any]]:
    """Return the stored records by network."""
    return json_files.read(FILE)


def export_selected(only: list[str] | None, missing: bool) -> None:
    """Export the selected networks and store their records."""
    results = read_results()
    selected = [
        spec
        for spec in specs()
        if (only is None or any(part in spec for part in only)) and not (missing and "parity" in results.get(spec, {}))
    ]
    for spec, record in export_several(selected):
        # Read the file again, because another process may have written to it.
        json_files.write(FILE, {**read_results(), spec: record})
        outcome = record.get("refused") or record.get("failed") or f"{record['seconds']} s"
        print(f"{spec}: {outcome}", flush=True)


def write_table() -> None:
    """Write the page from the stored records."""
    TABLE.write_text(table(specs(), read_results()))
    print(f"wrote {TABLE}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--several", nargs="+", help=argparse.SUPPRESS)
    parser.add_argument("--only", action="append", help="export only networks whose name contains this; repeatable")
    parser.add_argument("--missing", action="store_true", help="export only networks without a successful result")
    parser.add_argument("--table", action="store_true", help="only write the page from the stored results")
    options = parser.parse_args()
    if options.several:
        for spec in options.several:
            print(json.dumps(export_one(spec)), flush=True)
            gc.collect()
        return
    try:
        if not options.table:
            export_selected(options.only, options.missing)
    finally:
        write_table()


if __name__ == "__main__":
    main()
