"""An evaluation whose rows are shared out over the processes of torchrun, and merged exactly."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("scored_ranks.py")


@pytest.mark.parametrize("ranks", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_scores_of_ranks_are_those_of_one_process(ranks, tmp_path):
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(ranks)]
    done = subprocess.run([*command, SCRIPT, tmp_path / "rank"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    results = [json.loads((tmp_path / f"rank{rank}.json").read_text()) for rank in range(ranks)]
    assert [each["ranks"] for each in results] == [ranks] * ranks
    for name, first in results[0]["results"].items():
        rows = [each["results"][name]["rows"] for each in results]
        assert first["equal"] and first["a change is seen"] and sum(rows) == 13, name
        assert [each["results"][name]["equal"] for each in results[1:]] == [None] * (ranks - 1)
        if name.startswith("1 "):
            assert max(rows) - min(rows) <= 2
