"""`--engine ray`: the bytes of one process, also when a worker is killed; errors are those of the part."""

import json
import os
import pickle
import re
import secrets
import shlex
import socket
import subprocess
import sys
import tempfile
import time
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from made_run import make_run, settings_for

import cinefeed as cf
from cinefeed.cli import main
from cinefeed.core.errors import DiskFullError, MissingExtraError, SettingError
from cinefeed.jobs.on_ray import _do_part, default_parts
from cinefeed.jobs.parts import Part

HERE = Path(__file__).parent
ROWS = 13
needs_ray = pytest.mark.skipif(find_spec("ray") is None, reason="Ray is not installed")


@pytest.fixture(scope="module")
def on_ray():
    """A function that runs a command in a process with a Ray of two workers, and returns its status and output."""
    command = [sys.executable, HERE / "ray_commands.py"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:

        def run(*words, code=0, **options):
            words = [*map(str, words), "--engine", "ray", *(["--json"] if code == 0 else [])]
            process.stdin.write(json.dumps({"words": words, **options}) + "\n")
            process.stdin.flush()
            result = json.loads(process.stdout.readline())
            assert result["status"] == code, result["err"]
            # Ray's reports of lost workers may be between the lines.
            return json.loads(result["out"].splitlines()[-1]) if code == 0 else result["err"]

        yield run
        process.stdin.close()


@pytest.fixture
def videos(tmp_path):
    folder = tmp_path / "videos"
    folder.mkdir()
    for row in range(ROWS):
        np.save(folder / f"{row:02}.npy", np.full((5 + row % 3 * 20, 12, 12), 9 * row, np.uint8))
    lines = [f"{row:02}.npy,{20.5 + row},p{row // 2}" for row in range(ROWS)]
    (tmp_path / "labels.csv").write_text("\n".join(["path,age,patient", *lines]))
    return folder


@pytest.fixture
def manifest(videos, tmp_path):
    path = tmp_path / "given.parquet"
    assert main(["scan", str(videos), "--labels", str(tmp_path / "labels.csv"), "--out", str(path)]) == 0
    return path


def contents(path):
    if path.is_file():
        return path.read_bytes()
    return {str(each.relative_to(path)): each.read_bytes() for each in sorted(path.rglob("*")) if each.is_file()}


def one_process(*words):
    assert main([*map(str, words)]) == 0


@needs_ray
def test_a_killed_worker_a_failed_part_and_the_same_command_again(manifest, videos, tmp_path, on_ray):
    words = ["pack", manifest, "--codec", "raw", "--rows-per-shard", 3, "--out", tmp_path / "all"]
    one_process(*words, "--workers", 0)
    (tmp_path / "all").rename(tmp_path / "one")  # the manifest holds the path that it was written to
    (videos / "00.npy").rename(tmp_path / "away.npy")
    marker, dies = tmp_path / "killed", "cinefeed.cli.pack:_pack_part"
    error = on_ray(*words, code=1, dies=dies, marker=str(marker))
    assert re.search("^cinefeed: .*00.npy", error, re.MULTILINE) and "Traceback" not in error, error
    assert "part 0/5 failed; 4 of 5 are complete" in error
    assert not Path(f"/proc/{marker.read_text()}").exists()  # of part 1, which another process has done
    (tmp_path / "away.npy").rename(videos / "00.npy")
    shards = {each.name: each.stat().st_mtime_ns for each in tmp_path.glob(".all.parts/*/packed/shards/*.tar")}
    assert "--parts 3, but" in on_ray(*words, "--parts", 3, code=2)
    result = on_ray(*words)
    assert result["parts"] == result["shards"] == 5 and len(shards) == 4
    assert contents(tmp_path / "all") == contents(tmp_path / "one")
    again = {name: (tmp_path / "all" / "shards" / name).stat().st_mtime_ns for name in shards}
    assert again == shards and not (tmp_path / ".all.parts").exists()


@needs_ray
@pytest.mark.slow
@pytest.mark.parametrize("parts", [(), ("--parts", 3), ("--parts", 40)])
def test_a_scan_of_killed_workers(parts, videos, tmp_path, on_ray):
    words = ["scan", videos, "--labels", tmp_path / "labels.csv", "--private"]
    one_process(*words, "--out", tmp_path / "one" / "m.parquet")
    (tmp_path / "all").mkdir()
    (tmp_path / "all" / "m.parquet.salt").write_bytes((tmp_path / "one" / "m.parquet.salt").read_bytes())
    marker = tmp_path / "killed"
    out = ["--out", tmp_path / "all" / "m.parquet", *parts]
    result = on_ray(*words, *out, dies="cinefeed.jobs.scan:scan_part", marker=str(marker))
    assert marker.exists() and result["parts"] == (parts[1] if parts else ROWS)
    assert contents(tmp_path / "all") == contents(tmp_path / "one")


@needs_ray
@pytest.mark.slow
def test_networks_of_killed_workers(manifest, tmp_path, on_ray):
    make_run(settings_for(manifest, train={"out": str(tmp_path / "run")}, feed={"batch_size": 3}))
    words = ["predict", tmp_path / "run", "--manifest", manifest]
    one_process(*words, "--out", tmp_path / "one.csv")
    marker = tmp_path / "killed1"
    on_ray(*words, "--out", tmp_path / "all.csv", dies="cinefeed.jobs.predict:predict_part", marker=str(marker))
    assert marker.exists() and contents(tmp_path / "all.csv") == contents(tmp_path / "one.csv")
    words, marker = ["encode", tmp_path / "run", manifest, "--out", tmp_path / "all"], tmp_path / "killed2"
    one_process(*words)
    (tmp_path / "all").rename(tmp_path / "one")
    result = on_ray(*words, "--parts", 4, dies="cinefeed.cli.encode:_encode_part", marker=str(marker))
    assert marker.exists() and result["parts"] == 4 and result["dimension"]
    tables = [pq.read_table(tmp_path / name / "features.parquet").drop_columns("mtime_ns") for name in ("one", "all")]
    assert tables[0] == tables[1]
    assert tables[0].schema.metadata[b"cinefeed"] == tables[1].schema.metadata[b"cinefeed"]
    features = [contents(tmp_path / name) for name in ("one", "all")]
    for each in features:
        each.pop("features.parquet")  # it holds the time at which features were written
    assert features[0] == features[1] and len(features[0]) == ROWS + 1


@needs_ray
@pytest.mark.slow
def test_a_worker_that_is_lost_each_time(videos, tmp_path, on_ray):
    words = ["scan", videos, "--out", tmp_path / "m.parquet"]
    error = on_ray(*words, code=1, dies="cinefeed.jobs.scan:scan_part")
    assert "part 1/13: its worker process was lost 6 times" in error and "Traceback" not in error


@needs_ray
@pytest.mark.slow
def test_the_commands_of_the_page_on_a_cluster(videos, tmp_path):
    """A head of a cluster on this machine; the last command is that of the page, with its address."""
    page = (HERE.parents[1] / "docs" / "cluster.md").read_text()
    (block,) = re.findall(r"```\n(cinefeed scan videos/[^`]*--engine ray[^`]*)```", page)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = os.environ | {"PYTHONPATH": str(HERE.parents[1] / "src"), "RAY_USAGE_STATS_ENABLED": "0"}
    environment |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}  # of this cluster alone
    head = "start --head --block --num-cpus 2 --include-dashboard false --object-store-memory 80000000"
    command = [sys.executable, "-m", "ray.scripts.scripts", *head.split(), "--port", str(port)]
    with tempfile.TemporaryDirectory(prefix="ray") as folder, (tmp_path / "head.log").open("w") as log:
        process = subprocess.Popen([*command, "--temp-dir", folder], env=environment, stdout=log, stderr=log)
        try:
            while "To connect to this Ray" not in (tmp_path / "head.log").read_text():
                assert process.poll() is None, (tmp_path / "head.log").read_text()
                time.sleep(0.1)
            for line in block.splitlines():
                words = shlex.split(line.partition("   #")[0].replace("10.0.0.1:6379", f"127.0.0.1:{port}"))
                options = {"cwd": tmp_path, "env": environment, "capture_output": True, "text": True}
                done = subprocess.run([sys.executable, "-m", *words], **options, check=False)
                assert done.returncode == 0, done.stderr
        finally:
            process.terminate()
            process.wait()
    one_process("scan", videos, "--labels", tmp_path / "labels.csv", "--out", tmp_path / "one.parquet")
    assert cf.Manifest.read(tmp_path / "manifest.parquet").table == cf.Manifest.read(tmp_path / "one.parquet").table


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--engine", "dask"], "--engine 'dask' is not a choice; there are: ray"),
        (["--engine", "ray", "--shard", "0/2"], "give one of the two"),
        (["--parts", "3"], "--parts is for --engine ray"),
        (["--address", "a:1"], "--address is for --engine ray"),
    ],
)
def test_options_that_exclude_each_other(words, message, videos, tmp_path, capsys):
    assert main(["scan", str(videos), "--out", str(tmp_path / "m.parquet"), *words]) == 2
    assert message in capsys.readouterr().err


@needs_ray
@pytest.mark.parametrize("address", ["127.0.0.1:1", "http://127.0.0.1:8265", "head", "127.0.0.1:99999"])
def test_an_address_that_cannot_be_reached(address, videos, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    words = ["scan", str(videos), "--out", str(tmp_path / "m.parquet"), "--engine", "ray", "--address", address]
    assert main(words) == 2
    error = capsys.readouterr().err
    assert f"--address {address} " in error and len(error.splitlines()) == 1
    assert not list(tmp_path.glob(".*.parts"))


def fail(error, *, part, out):
    raise error()


@pytest.mark.parametrize(
    "make",
    [
        partial(SettingError, "workers=-1 must be at least 0"),
        partial(MissingExtraError, "h5py", extra="hdf5"),
        partial(DiskFullError, 28, "No space left", "run.json"),
        partial(PermissionError, 13, "Permission denied", "a.mp4"),
    ],
)
def test_an_error_of_a_part_is_that_of_one_process(make, tmp_path):
    result = _do_part(pickle.dumps(partial(fail, make)), Part(0, 1), str(tmp_path), str(Path.cwd()), {})
    kind, arguments = pickle.loads(pickle.dumps(result)).error
    assert (type(make()), str(make())) == (kind, str(kind.__new__(kind, *arguments)))


def test_the_number_of_parts_depends_on_the_data():
    assert [default_parts(each) for each in (0, 1, 30, 5_000, 10**6)] == [1, 1, 16, 50, 256]


def test_a_folder_that_another_machine_lacks(tmp_path):
    result = _do_part(pickle.dumps(partial(fail, OSError)), Part(0, 1), str(tmp_path), str(tmp_path / "no"), {})
    assert result.error[0] is SettingError and "does not exist on" in result.error[1][0]


def test_without_ray(videos, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    assert main(["scan", str(videos), "--out", str(tmp_path / "m.parquet"), "--engine", "ray"]) == 1
    assert "ray is not installed; run: pip install 'cinefeed[ray]'" in capsys.readouterr().err
