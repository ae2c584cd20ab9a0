"""The script of docs/cluster.md runs as it stands, under an sbatch that runs each task at once."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import cinefeed as cf

PAGE = Path(__file__).parents[2] / "docs" / "cluster.md"
SBATCH = """#!/bin/bash
# Runs the tasks of an array one after the other, and prints the number of the job.
echo "$@" >> "$TASKS_LOG"
for word in "$@"; do [[ $word == --array=* ]] && array=${word#--array=}; done
script=${!#}
job=$(wc -l < "$TASKS_LOG")
for task in $(python -c "
first, _, last = '${array:-0-0}'.partition('-')
print(*range(int(first), int(last) + 1))"); do
    SLURM_ARRAY_TASK_ID=$task bash "$script" >> "$TASKS_LOG.out" 2>&1 || exit 1
done
echo "$job"
"""

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the script is for clusters, with bash")


def test_the_script_of_the_page(tmp_path):
    (script,) = re.findall(r"```bash\n(#!/bin/bash.*?)```", PAGE.read_text(), re.DOTALL)
    (tmp_path / "cinefeed_slurm.sh").write_text(script)
    commands = {"sbatch": SBATCH, "cinefeed": f'#!/bin/bash\nexec {sys.executable} -m cinefeed "$@"\n'}
    commands["python"] = f'#!/bin/bash\nexec {sys.executable} "$@"\n'
    (tmp_path / "bin").mkdir()
    for name, text in commands.items():
        (tmp_path / "bin" / name).write_text(text)
        (tmp_path / "bin" / name).chmod(0o755)
    videos = tmp_path / "some videos"
    videos.mkdir()
    for row in range(5):
        np.save(videos / f"{row}.npy", np.full((6, 12, 12), 20 * row, np.uint8))
    (tmp_path / "labels.csv").write_text("path,age\n" + "".join(f"{row}.npy,{20 + row}\n" for row in range(5)))
    environment = os.environ | {"PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}", "PARTS": "2"}
    environment |= {"VIDEOS": str(videos), "LABELS": str(tmp_path / "labels.csv"), "TASKS_LOG": str(tmp_path / "log")}
    environment["PYTHONPATH"] = str(Path(cf.__file__).parents[1])
    done = subprocess.run(
        ["bash", "cinefeed_slurm.sh"], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    log = (tmp_path / "log.out").read_text() if (tmp_path / "log.out").exists() else ""
    assert done.returncode == 0, done.stderr + log
    packed = cf.Manifest.read(tmp_path / "data" / "packed")
    assert packed.column("age").to_pylist() == [20, 21, 22, 23, 24] and packed.is_packed
    jobs = (tmp_path / "log").read_text().splitlines()
    assert len(jobs) == 4 and "--array=0-1" in jobs[0] and "--dependency=afterok:3" in jobs[3]
