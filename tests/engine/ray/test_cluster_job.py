"""Tests of `seewhy.ray.cluster_job` on two workers: the rows equal those of one machine, even if processes die."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import seewhy
from seewhy import ArgumentError, ClusterError, OutputError, Settings, explain_folder
from seewhy.inputs.image_inputs import Inputs
from seewhy.ray import cluster_job
from support.command_line import run
from support.jobs.broken_jobs import lines
from support.markdown import blocks
from support.ray_rows import IMAGE_COUNT, one_machine, pa, parquet, read, write_png_files
from support.registered import unregister_all
from support.tiny_model import Tiny

MANY, BAD = 200, range(0, 200, 23)
# Settings of jobs that are killed.
SLOW = Settings(
    ("smoothgrad",), options={"smoothgrad": {"samples": 15}}, format="parquet", shard_images=10, full_size=True
)
QUIET = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


def on_a_cluster(test: Callable[..., None]) -> Callable[..., None]:
    for mark in QUIET:
        test = mark(test)
    return test


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """Start a cluster with two CPUs, and memory for few results."""
    ray = pytest.importorskip("ray")
    pytest.importorskip("ray.data")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("RAY_AUTH_MODE", "disabled")  # otherwise Ray leaves a token in the home folder
        start(ray)
        yield ray
        ray.shutdown()


def start(ray: Any) -> None:
    """Start a cluster for this test. Repeat if it times out, because a busy machine may need longer than Ray allows."""
    for tries_left in reversed(range(5)):
        try:
            ray.init(
                address="local",
                num_cpus=2,
                include_dashboard=False,
                object_store_memory=100 * 2**20,
                log_to_driver=False,
            )
            return
        except Exception as error:
            ray.shutdown()
            if not tries_left or "timed out during startup" not in str(error):
                raise


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory, make_image: Callable[..., Image.Image]) -> Path:
    """Make a folder of images. Some are damaged, and one name is not UTF-8."""
    folder = tmp_path_factory.mktemp("many") / "photos"
    folder.mkdir()
    for number in range(MANY):
        path = folder / f"{number:04}.png"
        make_image(seed=number).save(path)
        if number in BAD:
            path.write_bytes(path.read_bytes()[:number])
    os.rename(folder / "0005.png", os.fsencode(folder) + b"/0005 \xff\n.png")
    return folder


def job_of(model: Path, inputs: Sequence[object], out: Path, **settings: Any) -> Any:
    paths = [str(path) for path in inputs]
    request = cluster_job.resolve_ray_job(model, Settings(format="parquet", shard_images=64, **settings))
    return cluster_job.RayJob(request, Inputs(paths, out), out, cluster_job.WorkerPlan(2))


def assert_same(out: Path, expected: Path) -> None:
    """Assert that shards and manifests are equal, and `run.json` except for its times."""
    for name in ["manifest.jsonl", *(f"shards/{shard.name}" for shard in (expected / "shards").iterdir())]:
        assert (out / name).read_bytes() == (expected / name).read_bytes(), name
    assert len(list((out / "shards").iterdir())) == len(list((expected / "shards").iterdir()))
    ours, theirs = (json.loads((folder / "run.json").read_text()) for folder in (out, expected))
    assert {**ours, "started": 0, "ended": 0} == {**theirs, "started": 0, "ended": 0}


@on_a_cluster
def test_the_command_on_two_workers(cluster: Any, model_path: Path, many: Path, tmp_path: Path) -> None:
    """A folder and a list with relative paths, ids and targets give the same bytes as on one machine."""
    listed = tmp_path / "list.csv"
    with listed.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["path", "id", "target"])
        named = enumerate(sorted(path.name for path in many.glob("01*.png")))
        rows.writerows([name, f"id {place}", ["", "1", "moped", "wombat"][place % 4]] for place, name in named)
    common = ["--list", listed, "--format", "parquet", "--shard-size", 64, "-q"]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(many)
        there = run("explain", model_path, many, "-o", tmp_path / "there", *common, "--ray", "--ray-workers", 2)
        here = run("explain", model_path, many, "-o", tmp_path / "here", *common)
        again = run("explain", model_path, many, "-o", tmp_path / "there", *common)
    assert (there.exit_code, here.exit_code) == (1, 1), there.output
    assert there.stderr.replace("/there/", "/here/") == here.stderr
    assert_same(tmp_path / "there", tmp_path / "here")
    assert f"({MANY + 100} of the images in earlier attempts)" in again.stderr


@on_a_cluster
@pytest.mark.skipif(not Path("/proc").is_dir(), reason="finds the workers in /proc")
def test_a_worker_is_killed(cluster: Any, model_path: Path, many: Path, tmp_path: Path) -> None:
    job = job_of(model_path, [many], tmp_path / "there", methods=("gradcam", "cam"))
    killed = None
    for count, _ in enumerate(job, 1):
        if count == MANY // 4:
            killed = workers()[0]
            os.kill(killed, signal.SIGKILL)
    explain_folder(model_path, many, tmp_path / "here", Settings(("gradcam", "cam"), format="parquet", shard_images=64))
    assert killed is not None
    assert job.done + job.failed == MANY and job.failed == len(BAD)
    assert_same(tmp_path / "there", tmp_path / "here")


def workers() -> list[int]:
    """Return the processes of Ray Data's actors that this process has started."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            found[int(folder.name)] = parent, (folder / "cmdline").read_bytes()
        except OSError:
            continue
    ours = {one for one, (parent, _) in found.items() if parent == os.getpid()}
    return [one for one, (parent, line) in found.items() if b"ray::Map" in line and parent in ours]


@on_a_cluster
def test_a_job_that_was_interrupted(cluster: Any, model_path: Path, many: Path, tmp_path: Path) -> None:
    """The consumer stops early. A job on the cluster resumes, and one on this machine then finds nothing to do."""
    out = tmp_path / "there"
    broken = job_of(model_path, [many], out)
    for count, _ in enumerate(broken):  # noqa: B007
        if broken.done + broken.failed == 70:
            break
    assert count == 69
    del broken
    recorded = len(lines(out))
    assert 64 <= recorded <= 70
    job = job_of(model_path, [many], out)
    assert len(list(job)) == MANY - recorded and job.already_recorded == recorded
    explain_folder(model_path, many, tmp_path / "here", Settings(format="parquet", shard_images=64))
    assert read(out).equals(read(tmp_path / "here"))
    assert explain_folder(model_path, many, out, Settings(format="parquet", shard_images=64)).already_recorded == MANY


@on_a_cluster
def test_the_driver_is_killed(cluster: Any, model_path: Path, many: Path, tmp_path: Path) -> None:
    """A job on one machine resumes from there."""
    out = tmp_path / "there"
    address = cluster.get_runtime_context().gcs_address
    with begun(model_path, many, out, address) as process:
        process.kill()
        process.communicate()
    assert process.returncode == -signal.SIGKILL  # it was killed before its end
    while processes(process.pid):  # the driver, whose supervisor was killed
        time.sleep(0.01)
    assert 10 <= len(lines(out)) < MANY
    before = len(lines(out))
    assert explain_folder(model_path, many, out, SLOW).already_recorded == before
    explain_folder(model_path, many, tmp_path / "here", SLOW)
    assert_same(out, tmp_path / "here")


@on_a_cluster
@pytest.mark.skipif(sys.platform != "linux", reason="the command is supervised on Linux")
@pytest.mark.parametrize("name", ["raylet", "gcs_server"])
def test_a_process_of_the_cluster_is_killed(
    name: str, cluster: Any, model_path: Path, many: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ray then ends the driver. The command reports this, and leaves no process behind."""
    monkeypatch.setenv("RAY_gcs_rpc_server_reconnect_timeout_s", "5")
    out = tmp_path / "there"
    with begun(model_path, many, out, "local") as process:
        (killed,) = [one for one, line in processes(process.pid).items() if line[0].endswith(f"/{name}".encode())]
        os.kill(killed, signal.SIGKILL)
        _, errors = process.communicate(timeout=120)
    expected = "Ray ended the driver process (exit status 1); a process of the cluster has probably died"
    assert process.returncode == 2
    assert errors.splitlines()[-1] == f"seewhy: error: {expected}; the same command resumes the job"
    assert processes(process.pid) == {}
    before = len(lines(out))
    assert 10 <= before < MANY
    assert explain_folder(model_path, many, out, SLOW).already_recorded == before
    explain_folder(model_path, many, tmp_path / "here", SLOW)
    assert_same(out, tmp_path / "here")


def begun(model: Path, images: Path, out: Path, address: str) -> subprocess.Popen[str]:
    """Start the command with the settings SLOW in a session of its own, and wait until it has recorded images."""
    words = [sys.executable, "-m", "seewhy", "explain", model, images, "-o", out, "-q", "--method", "smoothgrad"]
    words += ["--option", "smoothgrad.samples=15", "--format", "parquet", "--shard-size", 10, "--full-size"]
    words += ["--ray", "--ray-workers", 1, "--ray-address", address]
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    process = subprocess.Popen(list(map(str, words)), **pipes, start_new_session=True)
    manifest = out / "manifest.jsonl"
    while not (manifest.exists() and manifest.stat().st_size) and process.poll() is None:
        time.sleep(0.01)
    return process


def processes(session: int) -> dict[int, list[bytes]]:
    """Return the running processes of a session, with their command lines."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            state, _, _, its_session = (folder / "stat").read_text().rpartition(")")[2].split()[:4]
            if int(its_session) == session and state != "Z":
                found[int(folder.name)] = (folder / "cmdline").read_bytes().split(b"\0")
    return found


@on_a_cluster
def test_the_cluster_resumes_a_job(cluster: Any, model_path: Path, many: Path, tmp_path: Path) -> None:
    """One machine has started the job."""
    out, settings = tmp_path / "there", Settings(format="parquet", shard_images=64)
    stop = threading.Event()
    begun = explain_folder(model_path, many, out, settings, stop=stop, progress=lambda done, _: stop.set())
    assert 0 < begun.done + begun.failed < MANY
    job = job_of(model_path, [many], out)
    assert len(list(job)) == MANY - job.already_recorded and job.already_recorded == begun.done + begun.failed
    explain_folder(model_path, many, tmp_path / "here", settings)
    assert read(out).equals(read(tmp_path / "here"))


@on_a_cluster
def test_failed_images_are_retried_from_another_folder(
    cluster: Any, model_path: Path, many: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The manifest keeps paths that are relative to the first folder, although the workers use others."""
    images = tmp_path / "images"
    images.mkdir()
    for path in sorted(many.glob("*.png"))[1:5]:
        shutil.copy(path, images)
    broken = sorted(images.iterdir())[2]
    content = broken.read_bytes()
    broken.write_bytes(b"")
    monkeypatch.chdir(tmp_path)
    job = job_of(model_path, ["images"], Path("out"))
    list(job)
    assert (job.done, job.failed) == (3, 1)
    broken.write_bytes(content)
    monkeypatch.chdir(images)
    request = cluster_job.resolve_ray_job(model_path, Settings(format="parquet", shard_images=64))
    inputs = Inputs(["."], "../out")
    again = cluster_job.RayJob(request, inputs, "../out", cluster_job.WorkerPlan(1), retry_failed=True)
    list(again)
    assert (again.done, again.failed) == (4, 0)
    found = lines(tmp_path / "out")
    assert sorted(line["path"] for line in found) == [f"images/{path.name}" for path in sorted(images.iterdir())]


@on_a_cluster
def test_more_images_than_one_wave(
    cluster: Any, model_path: Path, many: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """New workers start for each wave."""
    monkeypatch.setattr("seewhy.ray.cluster_job.IMAGES_PER_WAVE", 3 * MANY // 4)
    job = job_of(model_path, [many], tmp_path / "there", full_size=True)
    assert len(list(job)) == MANY
    here = Settings(format="parquet", shard_images=64, full_size=True)
    explain_folder(model_path, many, tmp_path / "here", here)
    assert_same(tmp_path / "there", tmp_path / "here")


@on_a_cluster
def test_errors_of_workers(cluster: Any, model_path: Path, many: Path, tmp_path: Path) -> None:
    """Errors are one line, and of the same class as on one machine."""
    replaced = tmp_path / "replaced.onnx"
    replaced.write_bytes(model_path.read_bytes())
    job = job_of(replaced, [many], tmp_path / "out")
    other = Tiny().save(tmp_path / "other.onnx", seed=1)
    os.replace(shutil.copy(other, tmp_path / "new.onnx"), replaced)
    here, there = (hashlib.sha256(path.read_bytes()).hexdigest() for path in (model_path, other))
    with pytest.raises(ClusterError, match=f"a Ray worker has sha256 {there} instead of {here}"):
        list(job)
    assert lines(tmp_path / "out") == []
    list(job_of(model_path, sorted(many.iterdir())[:2], tmp_path / "out"))
    with pytest.raises(OutputError, match="holds results of another job: model.sha256 was"):
        list(job_of(other, [many], tmp_path / "out"))


@on_a_cluster
@pytest.mark.parametrize("block", blocks("docs/how-to/several-machines.md", "python"), ids=lambda block: block.name)
def test_the_examples_run_as_printed(
    cluster: Any, block: Any, model_path: Path, make_image: Callable[..., Image.Image], tmp_path: Path
) -> None:
    """Files of this test replace those on a shared disk."""
    (tmp_path / "photos").mkdir()
    folder = str(Path(write_png_files(tmp_path / "photos", make_image)[0]).parent)
    code = block.code
    put = {
        "/shared/model.onnx": str(model_path),
        "/shared/images": folder,
        "/shared": str(tmp_path),
        "size=64": "size=2",
        "size=56": "size=1",
    }
    for printed, here in put.items():
        code = code.replace(printed, here)
    exec(compile(code, block.name, "exec"), {})
    rows = pa.concat_tables([parquet.read_table(path) for path in (tmp_path / "rows").glob("*.parquet")])
    expected = {row["path"]: row for row in one_machine(model_path, [folder], tmp_path / "out").to_pylist()}
    assert len(rows) == IMAGE_COUNT and sorted(rows["path"].to_pylist()) == sorted(expected)
    for row in rows.to_pylist():
        wanted = expected[row["path"]]
        assert {name: row[name] for name in wanted if name != "heatmap"} == {
            name: wanted[name] for name in wanted if name != "heatmap"
        }
        if wanted["heatmap"] is not None:
            stored = np.array(row["heatmap"], np.float64) * row.get("scale", 1) + row.get("offset", 0)
            np.testing.assert_allclose(stored, wanted["heatmap"], atol=np.ptp(wanted["heatmap"]) / 500, rtol=0)


@on_a_cluster
def test_a_plugin_reaches_the_workers(cluster: Any, model_path: Path, many: Path, tmp_path: Path) -> None:
    """A method of one's own gives the rows of one machine; one that only this process knows is refused."""
    plugin = tmp_path / "mine.py"
    plugin.write_text(
        "import numpy as np\nimport seewhy\n\n\ndef rule(values, context):\n"
        "    return (values['activations'] ** 2).sum(axis=1).astype(np.float32)\n\n\n"
        "seewhy.register_method(seewhy.Method('energy', 'Energy', ('activations',), True, rule))\n"
    )
    chosen: dict[str, Any] = {"methods": ["energy", "gradcam"], "plugins": [plugin]}
    try:
        job = job_of(model_path, [many], tmp_path / "there", **chosen)
        assert len(list(job)) == MANY
        settings = Settings(format="parquet", shard_images=64, **chosen)
        explain_folder(model_path, many, tmp_path / "here", settings)
        assert_same(tmp_path / "there", tmp_path / "here")
        unregister_all()
        seewhy.register_method(seewhy.Method("energy", "Energy", ("activations",), True, lambda v, c: v["activations"]))
        with pytest.raises(ArgumentError, match="method energy is registered in this process only"):
            job_of(model_path, [many], tmp_path / "other", methods=["energy"])
    finally:
        unregister_all()
