"""The benchmarks page is written from rows; these are made up, and nothing is timed."""

import re
from importlib import import_module
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def on_path(monkeypatch):
    monkeypatch.syspath_prepend(ROOT)


def row(**peers):
    """Return a row in which cinefeed has 100, 110 and 90 clips/s; each peer has values, and a problem."""
    rows = import_module("benchmarks.rows")
    values = {"cinefeed": [100.0, 110.0, 90.0]} | {name: value for name, (value, _) in peers.items() if value}
    problems = {name: problem for name, (_, problem) in peers.items() if problem}
    members = rows.contestants(values, problems=problems, notes={"cinefeed": "4.0 MB"}, bounds=["copy"])
    return rows.Row(what="grey | small", unit="clips/s", check="Frames were compared.", contestants=members)


def page_of(*rows, **options):
    page, module = import_module("benchmarks.page"), import_module("benchmarks.rows")
    result = module.Result(rows=rows, problems=("`pocus` is left out.",))
    settings = {"title": "Decoding", "command": "python -m benchmarks decoding", "text": "Clips.", "why": "It cheats."}
    section = page.Section(**settings | options, result=result)
    return page.markdown([section], head="Two cores."), page.chart([section])


SLOW = ([50.0, 50.0, 50.0], "")
FAST = ([200.0, 100.0, 200.0], "")
WRONG = ([900.0, 900.0, 900.0], "returns other frames (9% of them)")
ABSENT = ([], "cannot be loaded here: no FFmpeg")


def test_medians_spread_and_ratios_within_runs():
    text, _ = page_of(row(slow=SLOW))
    assert "| cinefeed, 4.0 MB | 100 | 90.0, 110 |  |  |" in text
    assert "| slow | 50.0 | 50.0, 50.0 | 2.00 (1.80 to 2.20) | the same |" in text
    assert r"| Decoding: grey \| small | clips/s | 100 | 50.0 | slow | 2.00 (1.80 to 2.20) |" in text
    assert "`python -m benchmarks decoding`" in text and "`pocus` is left out." in text and "Two cores." in text
    assert "wins" not in text and "better here" not in text


def test_a_peer_that_wins_is_named_in_the_table_and_the_text_says_why():
    text, _ = page_of(row(slow=SLOW, fast=FAST))
    assert "**0.500 (0.450 to 1.10): the peer wins**" in text
    assert "**A peer is better here:** fast (grey | small). It cheats." in text
    assert "Why is not known yet." in page_of(row(fast=FAST), why="")[0]


def test_less_is_better_turns_the_ratio():
    rows = import_module("benchmarks.rows")
    times = rows.contestants({"cinefeed": [2.0], "slow": [6.0]})
    text, _ = page_of(rows.Row(what="a", unit="ms", check="Yes.", contestants=times, higher_is_better=False))
    assert "**a**, ms, less is better. Yes." in text and "| slow | 6.00 |  | 3.00 | the same |" in text


def test_a_peer_with_other_frames_gets_no_ratio_and_does_not_win():
    text, _ = page_of(row(slow=SLOW, wrong=WRONG))
    assert "| wrong | 900 | 900, 900 | no ratio | returns other frames (9% of them) |" in text
    assert "| 100 | 50.0 | slow | 2.00" in text and "wins" not in text
    assert "best peer" not in page_of(row(wrong=WRONG))[0]


def test_a_missing_peer_and_a_bound_have_no_ratio():
    text, _ = page_of(row(absent=ABSENT, copy=FAST))
    assert "| absent | not measured |  |  | cannot be loaded here: no FFmpeg |" in text
    assert "| copy | 200 | 100, 200 |  |  |" in text and "better here" not in text


def test_the_chart_has_a_point_for_each_row_with_a_peer(tmp_path):
    page = import_module("benchmarks.page")
    _, svg = page_of(row(slow=SLOW), row(fast=FAST), row(absent=ABSENT))
    labels = ["".join(text.itertext()) for text in ElementTree.fromstring(svg).iter("{http://www.w3.org/2000/svg}text")]
    assert "2.00 times slow" in labels and "0.500 times fast" in labels
    assert labels.count("Decoding: grey | small") == 2
    path = page.write_page(tmp_path, [], head="Nothing was measured.")
    assert path.name == "benchmarks.md" and (tmp_path / "benchmarks.svg").stat().st_size > 1000


def test_results_are_read_as_they_were_written(tmp_path):
    rows = import_module("benchmarks.rows")
    result = rows.Result(
        rows=(row(slow=SLOW, absent=ABSENT),), problems=("a",), seconds=2.5, date="2026-11-29", load=3.0
    )
    result.write(tmp_path / "part.json")
    assert rows.Result.read(tmp_path / "part.json") == result


def test_frames_nearer_to_a_neighbour_are_wrong():
    rows = import_module("benchmarks.rows")
    video = np.arange(0, 200, 20, dtype=np.uint8)[:, None, None, None] * np.ones((1, 8, 8, 3), np.uint8)
    near = {"neighbours": [video[:8], video[2:]]}
    assert rows.wrong_frames(video[1:9] + 1, video[1:9], **near) == 0
    assert rows.wrong_frames(video[:8], video[1:9], **near) == 8
    assert rows.frames_problem(2, 100) and not rows.frames_problem(1, 100)


def test_every_part_is_a_module_that_yields_rows():
    parts = import_module("benchmarks.parts")
    for part in parts.PARTS:
        code = (ROOT / "benchmarks" / f"{part.module}.py").read_text(encoding="utf-8")
        assert re.search(r"^def rows\(\*, quick: bool\) -> ", code, re.MULTILINE), part.name
    assert len({part.name for part in parts.PARTS}) == len(parts.PARTS)
