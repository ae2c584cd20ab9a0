"""Loops as users of PyTorch write them, with what they put around their networks."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import cinefeed as cf
from cinefeed.adapters.torch import FeedLoader


def test_ten_lines(manifest):
    feed = cf.Feed(manifest, target="sick", clip=cf.Clip(frames=4), frame=cf.Frame(height=16, width=16, channels=1))
    model = torch.nn.Sequential(torch.nn.Conv3d(1, 4, 3), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(1568, 2))
    loader, criterion = FeedLoader(feed, layout="BCTHW"), torch.nn.CrossEntropyLoss()
    optimizer = torch.optim.Adam(model.parameters())
    for _ in range(2):
        for inputs, targets, _ in loader:
            optimizer.zero_grad()
            loss = criterion(model(inputs["clips"].float() / 255), targets)
            loss.backward()
            optimizer.step()
    assert torch.isfinite(loss) and feed.epoch == 2


class Network(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = torch.nn.Conv3d(1, 4, 3)
        self.head = torch.nn.Linear(4, 1)

    def forward(self, clips):
        return self.head(torch.relu(self.conv(clips.float() / 255)).mean((2, 3, 4)))[:, 0]


def losses(manifest, *, wrap=lambda model: model, autocast=False):
    feed = cf.Feed(
        manifest,
        target="age",
        clip=cf.Clip(frames=4),
        frame=cf.Frame(height=16, width=16, channels=1),
        batch_size=4,
        drop_last=True,
        workers=1,
    )
    torch.manual_seed(0)
    model = wrap(Network())
    optimizer, result = torch.optim.SGD(model.parameters(), lr=1e-5), []
    for _ in range(2):
        for inputs, targets, weights in FeedLoader(feed, layout="BCTHW"):
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
                predictions = model(inputs["clips"])
            loss = (weights * (predictions.float() - targets) ** 2).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            result.append(loss.item())
    return result


def test_autocast(manifest):
    plain = losses(manifest)
    assert np.allclose(losses(manifest, autocast=True), plain, rtol=0.05) and len(plain) == 4


def test_compile(manifest):
    """Traced as for a compiler, without one, which takes a minute: one graph for all batches, of views of memory."""
    graphs = []

    def backend(graph, example):
        graphs.append(graph)
        return graph.forward

    torch._dynamo.reset()
    compiled = losses(manifest, wrap=lambda model: torch.compile(model, backend=backend, fullgraph=True))
    assert np.allclose(compiled, losses(manifest), rtol=1e-5) and len(graphs) == 1


@pytest.mark.parametrize("ranks", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_accelerate(manifest, tmp_path, ranks):
    pytest.importorskip("accelerate", reason="accelerate is not installed: pip install accelerate")
    manifest.write(tmp_path / "m.parquet")
    script = [Path(__file__).with_name("accelerated.py"), tmp_path / "m.parquet", tmp_path]
    launch = ["-m", "torch.distributed.run", "--nproc-per-node", str(ranks), "--standalone"] if ranks > 1 else []
    done = subprocess.run(
        [sys.executable, *launch, *script],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    result = [json.loads((tmp_path / f"rank{rank}.json").read_text()) for rank in range(ranks)]
    assert all(each == result[0] for each in result), "ranks differ in what they gathered, or in their weights"
    labels, ages = result[0][0], sorted(20.0 + row * row for row in range(11))
    steps = len(labels) // 2
    assert steps == {1: 6, 2: 3}[ranks]
    for epoch in (labels[:steps], labels[steps:]):
        assert sorted(age for batch in epoch for age in batch) == ages
