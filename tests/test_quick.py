"""`make quick` leaves out what is slow, and a test that is not quick cannot pass unnoticed."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

FAULTS = {
    "a framework": "import keras",
    "a process": "import subprocess, sys; subprocess.run([sys.executable, '-c', ''])",
    "a fork": "import os; os.fork() or os._exit(0)",
    "a video": "import av; av.open('a.mp4')",
}


def run(folder: Path, *options: str) -> str:
    shutil.copy(Path(__file__).with_name("quick.py"), folder)
    command = [sys.executable, "-m", "pytest", "-p", "quick", "-p", "no:cacheprovider", "-q", *options, "."]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True).stdout


@pytest.mark.parametrize("kind", FAULTS)
def test_what_is_not_quick_is_noticed(tmp_path, kind):
    (tmp_path / "test_one.py").write_text(f"def test_one():\n    {FAULTS[kind]}\n")
    printed = run(tmp_path, "--quick")
    assert "NotQuickError" in printed and "1 failed" in printed, printed


def test_listed_files_and_slow_tests_are_left_out(tmp_path):
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "test_net.py").write_text("raise AssertionError('imported')")
    tests = "import pytest\n@pytest.mark.slow\ndef test_a(): assert 0\ndef test_b(data): assert 0\ndef test_c(): pass\n"
    (tmp_path / "test_one.py").write_text(tests)
    assert "1 passed, 2 deselected" in run(tmp_path, "--quick", "-W", "ignore::pytest.PytestUnknownMarkWarning")
