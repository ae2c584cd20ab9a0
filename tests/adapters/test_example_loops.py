"""The examples of training over several processes run, cover each row once, and resume on another number of them."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch

import cinefeed as cf

EXAMPLES = Path(__file__).parents[2] / "examples"
OPTIONS = "--target age --batch-size 2 --frames 4 --size 16 --workers 0".split()
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node"]


@pytest.fixture
def rows(tmp_path):
    """The manifest of 23 videos: 16 rows train, an epoch of 4 steps of two processes; 5 rows validate."""
    for row in range(23):
        np.save(tmp_path / f"{row:02}.npy", np.full((6, 16, 16), 10 * row, np.uint8))
    table = pa.table({"path": [f"{row:02}.npy" for row in range(23)], "age": [20.5 + row for row in range(23)]})
    cf.Manifest.from_table(table, root=tmp_path).write(tmp_path / "m.parquet")
    return tmp_path / "m.parquet"


def run(*words):
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run([str(word) for word in words], capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def ddp(rows, out, *words, ranks):
    run(*TORCHRUN, ranks, EXAMPLES / "ddp.py", rows, "--out", out, *OPTIONS, *words)
    return json.loads((out / "validation.json").read_text()) if (out / "validation.json").exists() else None


def parts_of(rows):
    return cf.Manifest.read(rows).split(val=0.2, test=0.1, group=None, seed=7)


@pytest.mark.slow
def test_a_plain_loop_resumes_in_mid_epoch_as_if_it_had_not_stopped(rows, tmp_path):
    whole = ddp(rows, tmp_path / "whole", "--epochs", 2, ranks=2)
    assert sorted(whole["scores"]) == sorted(parts_of(rows).val.column("id").to_pylist())
    assert ddp(rows, tmp_path / "a", "--epochs", 2, "--stop-after", 2, ranks=2) is None
    assert ddp(rows, tmp_path / "a", "--epochs", 2, ranks=2) == whole
    weights = [torch.load(tmp_path / name / "checkpoint.pt", weights_only=True)["model"] for name in ("a", "whole")]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[1])


@pytest.mark.slow
@pytest.mark.parametrize("ranks", [1, 4])
def test_a_plain_loop_resumes_on_another_number_of_processes(ranks, rows, tmp_path):
    ddp(rows, tmp_path / "a", "--epochs", 2, "--stop-after", 2, ranks=2)  # half of the first epoch
    place = torch.load(tmp_path / "a" / "checkpoint.pt", weights_only=True)["loader"]
    assert (place["epoch"], place["draws"]) == (0, 8)
    result = ddp(rows, tmp_path / "a", "--epochs", 2, ranks=ranks)
    assert result["epoch"] == 2 and len(result["scores"]) == len(parts_of(rows).val)
    # The scores that the ranks have merged are those of the network of the checkpoint, row by row.
    sys.path.insert(0, str(EXAMPLES))
    from ddp import network

    model, val = network(1), parts_of(rows).val
    model.load_state_dict(torch.load(tmp_path / "a" / "checkpoint.pt", weights_only=True)["model"])
    feed = cf.Feed(
        val, target="age", clip=cf.Clip(frames=4), frame=cf.Frame(height=16, width=16, channels=1), workers=0
    )
    for batch in feed.evaluation(val):
        scores = model(torch.from_numpy(batch.clips).movedim(-1, 1).float() / 255)[:, 0].tolist()
        assert [result["scores"][name] for name in batch.ids.tolist()] == pytest.approx(scores, rel=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("processes", [1, 2])
def test_two_machines_on_loopback(processes, rows, tmp_path):
    """Two torchruns with --nnodes 2 meet, as on two machines: 2 or 4 processes in all."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    meeting = ["--nnodes", "2", "--rdzv-backend", "c10d", "--rdzv-endpoint", f"127.0.0.1:{port}", "--rdzv-id", "7"]
    command = [*TORCHRUN[:-2], *meeting, "--local-addr", "127.0.0.1", "--nproc-per-node", str(processes)]
    command += [EXAMPLES / "ddp.py", rows, "--out", tmp_path / "a", *OPTIONS, "--epochs", "1"]
    machines = [
        subprocess.Popen(command, env=os.environ | {"OMP_NUM_THREADS": "1"}, stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    errors = [machine.communicate()[1] for machine in machines]
    assert [machine.returncode for machine in machines] == [0, 0], errors
    result = json.loads((tmp_path / "a" / "validation.json").read_text())
    assert sorted(result["scores"]) == sorted(parts_of(rows).val.column("id").to_pylist())
    place = torch.load(tmp_path / "a" / "checkpoint.pt", weights_only=True)["loader"]
    assert (place["epoch"], place["draws"]) == (1, 0)


@pytest.mark.slow
def test_lightning_on_two_processes_resumes_on_one(rows, tmp_path):
    pytest.importorskip("pytorch_lightning", reason="Lightning is not installed: pip install pytorch-lightning")
    words = [sys.executable, EXAMPLES / "lightning_ddp.py", rows, "--out", tmp_path / "a", *OPTIONS]
    expected = sorted(parts_of(rows).val.column("age").to_pylist())
    run(*words, "--epochs", 1, "--devices", 2)
    assert json.loads((tmp_path / "a" / "validation.json").read_text())["targets"] == expected
    run(*words, "--epochs", 2, "--devices", 1)
    result = json.loads((tmp_path / "a" / "validation.json").read_text())
    assert result["epoch"] == 2 and result["targets"] == expected
