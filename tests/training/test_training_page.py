"""The example of docs/training.md in Python runs as it stands."""

import re
from pathlib import Path

import pyarrow as pa
from made_run import make_manifest, settings_for

from cinefeed.config import to_toml

PAGE = Path(__file__).parents[2] / "docs" / "training.md"


def test_a_run_from_settings_in_python(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = make_manifest(tmp_path / "videos")
    Path("age.toml").write_text(to_toml(settings_for(path, evaluate={"baselines": False, "clips": 2})))
    Path("new_videos").mkdir()
    Path("new_videos", "a.npy").write_bytes((tmp_path / "videos" / "00.npy").read_bytes())
    (block,) = re.findall(r"## In Python.*?```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    *lines, last = block.strip().splitlines()
    names = {}
    exec(compile("\n".join(lines), str(PAGE), "exec"), names)
    assert names["result"].epochs == 2 and names["result"].folder == Path("runs/quick")
    assert names["settings"].evaluate.clips == 1 and not names["settings"].evaluate.baselines
    table = eval(last.partition("  #")[0], names)
    assert isinstance(table, pa.Table) and table.num_rows == 1
