"""The page about feeds is a program that runs, one block after the other."""

import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

import cinefeed as cf

PAGE = Path(__file__).parents[1] / "docs" / "feed.md"


@pytest.fixture
def train(tmp_path):
    for number in range(6):
        np.save(tmp_path / f"{number}.npy", np.full((40, 20, 24), 40 * number, np.uint8))
    table = pa.table({"path": [f"{number}.npy" for number in range(6)], "age": [31.0, 45.0, 60.0, 52.0, 47.0, 70.0]})
    return cf.Manifest.from_table(table, root=tmp_path)


def test_the_examples_run_in_their_order(train, capsys):
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert len(blocks) == 5
    names = {"train": train}
    for block in blocks:
        exec(compile(block, str(PAGE), "exec"), names)
    output = capsys.readouterr().out
    assert "(4, 16, 112, 112, 1)" in output and "torch.Size([4, 1, 16, 112, 112])" in output and "bottleneck" in output
    assert names["feed"].epoch == 6, "five, and one that the loader went through"
