"""Export every classifier of torchvision and a member of each timm family, and write docs/reference/models.md.

    python benchmarks/compatibility/zoo.py                 all of them, from scratch (hours on two cores)
    python benchmarks/compatibility/zoo.py --missing       those without a result in benchmarks/results/zoo.json
    python benchmarks/compatibility/zoo.py --only swin     those whose name holds this, again
    python benchmarks/compatibility/zoo.py --table         the table alone, from the results

Each network gets live random weights (see tests/support/exporting/networks.py) and a process of its own; `export`
itself compares the file under onnxruntime with PyTorch's autograd in float64.
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
from benchmarks.compatibility.zoo_page import table
from benchmarks.shared import json_files
from benchmarks.shared.child_processes import last_line
from benchmarks.shared.machine_facts import versions
from benchmarks.shared.random_networks import calibrated_network

FILE = RESULTS / "zoo.json"
TABLE = ROOT / "docs" / "reference" / "models.md"
# Networks in one process, and the most seconds for them.
TOGETHER, SECONDS = 6, 7200
PACKAGES = ("seewhy", "torch", "torchvision", "timm", "onnxruntime", "onnxscript")

# One small member of each family.
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
    from seewhy_export.sources.torchvision_import import import_torchvision

    models = import_torchvision().models
    return [f"torchvision:{name}" for name in models.list_models(module=models)] + [f"timm:{name}" for name in TIMM]


def export_one(spec: str) -> dict[str, Any]:
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


def export_several(wanted: list[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Export in processes of a few networks each, which saves most of the imports; a crash costs one network."""
    # One thread: on a busy machine PyTorch's threads wait for each other.
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    waiting = list(wanted)
    while waiting:
        group, waiting = waiting[:TOGETHER], waiting[TOGETHER:]
        command = [sys.executable, __file__, "--several", *group]
        with (
            tempfile.TemporaryFile("w+") as errors,
            subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=errors, text=True) as process,
        ):
            assert process.stdout is not None
            watch = threading.Timer(SECONDS, process.kill)
            watch.start()
            for line in process.stdout:
                if line.startswith("{") and group:
                    yield group.pop(0), json.loads(line)
            process.wait()
            watch.cancel()
            # One that fails with nothing left to try did all its work.
            if group:
                errors.seek(0)
                yield group.pop(0), {"failed": f"exit status {process.returncode}: {last_line(errors.read())}"}
            waiting = group + waiting


def read_results() -> dict[str, dict[str, Any]]:
    return json_files.read(FILE)


def export_wanted(only: list[str] | None, missing: bool) -> None:
    results = read_results()
    wanted = [
        spec
        for spec in specs()
        if (only is None or any(part in spec for part in only)) and not (missing and "parity" in results.get(spec, {}))
    ]
    for spec, record in export_several(wanted):
        # Read again: another run may have written in the meantime.
        json_files.write(FILE, {**read_results(), spec: record})
        outcome = record.get("refused") or record.get("failed") or f"{record['seconds']} s"
        print(f"{spec}: {outcome}", flush=True)


def write_table() -> None:
    TABLE.write_text(table(specs(), read_results()))
    print(f"wrote {TABLE}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--several", nargs="+", help=argparse.SUPPRESS)
    parser.add_argument("--only", action="append", help="only models whose name holds this; repeatable")
    parser.add_argument("--missing", action="store_true", help="only models without a good result")
    parser.add_argument("--table", action="store_true", help="write the page from the results there are")
    options = parser.parse_args()
    if options.several:
        for spec in options.several:
            print(json.dumps(export_one(spec)), flush=True)
            gc.collect()
        return
    try:
        if not options.table:
            export_wanted(options.only, options.missing)
    finally:
        write_table()


if __name__ == "__main__":
    main()
