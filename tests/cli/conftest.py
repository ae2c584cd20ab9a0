"""The command is tested on torch, in this process."""

import os

os.environ.setdefault("KERAS_BACKEND", "torch")

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from cinefeed.cli import main


class Done(NamedTuple):
    """What a command came to."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """What it printed, as JSON."""
        return json.loads(self.out)


@pytest.fixture
def cinefeed(capsys: pytest.CaptureFixture[str]) -> Callable[..., Done]:
    """Runs a command line, given as words, and returns exit code, stdout and stderr."""

    def run(*words: object) -> Done:
        capsys.readouterr()
        code = main([str(word) for word in words])
        output = capsys.readouterr()
        assert "Traceback" not in output.err
        return Done(code, output.out, output.err)

    return run


@pytest.fixture
def videos(tmp_path: Path) -> Path:
    """A folder of 12 videos of 6 patients, and labels.csv: kind (a, b), age, and group, one patient each."""
    folder = tmp_path / "videos"
    lines = ["path,patient,kind,age"]
    for number in range(12):
        patient = number // 2
        (folder / f"p{patient}").mkdir(parents=True, exist_ok=True)
        frames = np.full((6, 12, 12), 20 * number, np.uint8)
        np.save(folder / f"p{patient}" / f"v{number}.npy", frames)
        lines.append(f"p{patient}/v{number}.npy,p{patient},{'ab'[patient % 2]},{20.5 + number}")
    (tmp_path / "labels.csv").write_text("\n".join(lines) + "\n")
    return folder


@pytest.fixture
def manifest(videos: Path, cinefeed: Callable[..., Done]) -> Path:
    """The manifest that `cinefeed scan` makes of the videos."""
    out = videos.parent / "m.parquet"
    assert cinefeed("scan", videos, "--labels", videos.parent / "labels.csv", "--out", out).code == 0
    return out
