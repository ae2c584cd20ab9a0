"""The pages of docs/ are programs that run, one block after the other, in one folder.

python     runs; the blocks of a page share their names
bash       `cinefeed ...` runs in this process, `python ...` and `torchrun ...` in another one; others are errors, but
           for `pip install` and `export`, which prepare a machine
text       is what the blocks before it have printed, line by line; `...` stands for any text
others     with title="NAME" are written to the file NAME, also Python, which is compiled; the page runs or imports it
"""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pytest

import cinefeed as cf
from cinefeed.cli import main

DOCS = Path(__file__).parents[1] / "docs"
PAGES = sorted(
    path.relative_to(DOCS).as_posix() for name in ("tutorials", "how_to") for path in (DOCS / name).glob("*.md")
)
SLOW = {  # they train from the command line, or measure
    *("tutorials/first_run.md", "tutorials/cardiac_cine.md", "tutorials/cluster.md", "tutorials/pretrained_encoder.md"),
    *("how_to/several_gpus.md", "how_to/slow_feed.md"),
}
LONG = ("notebooks.md", "models.md", "../README.md")  # pages about concepts whose Python takes long
UNRUN = ("pip install ", "export ")  # beginnings of commands that prepare a machine


class Block(NamedTuple):
    """A fenced block of a page."""

    line: int
    language: str
    title: str
    text: str


def blocks_of(page: Path, *, strict: bool = True) -> list[Block]:
    content, blocks = page.read_text(), []
    for match in re.finditer(r'^```(\w+)(?: title="([^"]+)")?\n(.*?)^```$', content, re.DOTALL | re.MULTILINE):
        blocks.append(Block(content[: match.start()].count("\n") + 1, match[1], match[2] or "", match[3]))
    assert not strict or content.count("\n```") == 2 * len(blocks), f"{page}: a fence has no language, or is indented"
    return blocks


def run_page(page: Path, names: dict[str, object], capsys: pytest.CaptureFixture[str]) -> str:
    """Run the blocks of a page in the current folder, and return what they printed."""
    output = ""
    for block in blocks_of(page):
        place = f"{page.relative_to(DOCS)}:{block.line}"
        if block.title:
            path = Path(block.title)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(block.text)
            if block.language == "python":
                compile(block.text, place, "exec")
        elif block.language == "python":
            exec(compile("\n" * block.line + block.text, str(page), "exec"), names)
        elif block.language == "bash":
            for command in commands_of(block.text):
                words, target = (command[: command.index(">")], command[-1]) if ">" in command else (command, None)
                if target is not None:  # the shell writes what is printed
                    output += capsys.readouterr().out
                    Path(target).write_text(run_command(words, place, capsys))
                else:
                    output += run_command(words, place, capsys)
        elif block.language == "text":
            check_output(block.text, output + capsys.readouterr().out, place)
        else:
            pytest.fail(f"{place}: a block of {block.language!r} needs title=")
        output += capsys.readouterr().out
    return output


def commands_of(text: str) -> list[list[str]]:
    """Return the commands of a block as words; `\\` continues a line, `#` begins a comment."""
    return [words for line in text.replace("\\\n", " ").splitlines() if (words := shlex.split(line, comments=True))]


def run_command(words: list[str], place: str, capsys: pytest.CaptureFixture[str]) -> str:
    before = capsys.readouterr().out
    if words[0] == "cinefeed":
        assert main(words[1:]) == 0, f"{place}: {shlex.join(words)}\n{capsys.readouterr().err}"
    elif words[0] in ("python", "torchrun"):
        module = ["-m", "torch.distributed.run"] if words[0] == "torchrun" else []
        environment = os.environ | {"PYTHONPATH": str(Path(cf.__file__).parents[1])}
        command = [sys.executable, *module, *words[1:]]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{place}: {shlex.join(words)}\n{done.stderr[-3000:]}"
        return before + done.stdout
    else:
        assert shlex.join(words).startswith(UNRUN), f"{place}: the test cannot run {words[0]!r}"
    return before + capsys.readouterr().out


def check_output(text: str, output: str, place: str) -> None:
    for line in filter(None, map(str.strip, text.splitlines())):
        pattern = r"\s+".join(".*?".join(map(re.escape, word.split("..."))) for word in line.split())
        assert re.search(pattern, output), f"{place}: {line!r} was not printed, but\n{output[-3000:]}"


@pytest.fixture
def train(tmp_path):
    for number in range(6):
        np.save(tmp_path / f"{number}.npy", np.full((40, 20, 24), 40 * number, np.uint8))
    table = pa.table({"path": [f"{number}.npy" for number in range(6)], "age": [31.0, 45.0, 60.0, 52.0, 47.0, 70.0]})
    return cf.Manifest.from_table(table, root=tmp_path)


def test_the_page_about_feeds(train, capsys):
    page = DOCS / "feed.md"
    names = {"train": train}
    output = run_page(page, names, capsys)
    assert len(blocks_of(page)) == 5
    assert "(4, 16, 112, 112, 1)" in output and "torch.Size([4, 1, 16, 112, 112])" in output and "bottleneck" in output
    assert names["feed"].epoch == 6, "five, and one that the loader went through"


@pytest.mark.usefixtures("forgotten_readers")
@pytest.mark.parametrize(
    "name",
    [
        "labels.md",
        "transforms.md",
        "formats.md",
        "balance.md",
        "pretrained.md",
        *(pytest.param(each, marks=pytest.mark.slow) for each in LONG),
    ],
)
def test_the_python_of_a_page_about_concepts(name, tmp_path, monkeypatch, capsys):
    """The pages name a folder `studies`, a table `labels.csv`, a split `parts` and a `feed`, which they do not make."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))  # for pages of `show`
    Path("studies").mkdir()
    lines, rows = ["path,patient,age"], 6 if name == "../README.md" else 24  # the README trains for 20 epochs
    for number in range(rows):
        np.save(f"studies/{number:02d}.npy", np.full((30, 20, 24), 10 * number, np.uint8))
        lines.append(f"{number:02d}.npy,p{number // 2},{20.5 + number}")
    Path("labels.csv").write_text("\n".join(lines))
    paths = [f"{number:02d}.npy" for number in range(rows)]
    spacing = {"spacing_down_mm": [1.5] * rows, "spacing_across_mm": [1.5] * rows}
    numbers = np.arange(float(rows))
    labels = {"age": numbers, "ejection_fraction": numbers + 0.5, "diagnosis": ["well", "sick"] * (rows // 2)}
    train = cf.Manifest.from_table({"path": paths, **labels, **spacing}, root="studies")
    clip, frame = cf.Clip(frames=4), cf.Frame(height=16, width=16, channels=1)
    feed = cf.Feed(train, target="age", clip=clip, frame=frame)
    names = {"cf": cf, "train": train, "parts": train.split(val=0.2, test=0.2, group=None), "feed": feed}
    blocks = [block for block in blocks_of(DOCS / name, strict=False) if block.language == "python"]
    for block in blocks:
        if not block.text.startswith(">>>") and "runs/a" not in block.text:  # an error, or of a run
            exec(compile("\n" * block.line + block.text, name, "exec"), names)
    assert blocks


@pytest.mark.usefixtures("forgotten_readers")
@pytest.mark.filterwarnings(
    "ignore:.*shard-000000.tar:pytest.PytestUnraisableExceptionWarning"
)  # webdataset leaves it open
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow) if name in SLOW else name for name in PAGES]
)
def test_a_page_for_users_runs_from_top_to_bottom(name, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    modules = set(sys.modules)
    try:
        run_page(DOCS / name, {"__name__": "page"}, capsys)
    finally:
        for module in {*sys.modules} - modules:
            if getattr(sys.modules[module], "__file__", None) and sys.modules[module].__file__.startswith(
                str(tmp_path)
            ):
                del sys.modules[module]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("```python\n1 / 0\n```\n", "division"),
        ("```bash\ncinefeed scan nowhere --out m.parquet\n```\n", "nowhere"),
        ("```bash\nrm -rf data\n```\n", "cannot run 'rm'"),
        ("```python\nprint(1)\n```\n\n```text\n2\n```\n", "'2' was not printed"),
        ("```toml\na = 1\n```\n", "needs title"),
        ("```\nprint(1)\n```\n", "no language"),
    ],
)
def test_a_page_that_is_wrong_fails(text, reason, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys.modules[__name__], "DOCS", tmp_path)
    Path("page.md").write_text(f"A page\n\n{text}")
    with pytest.raises((AssertionError, ArithmeticError, pytest.fail.Exception), match=reason):
        run_page(tmp_path / "page.md", {}, capsys)
