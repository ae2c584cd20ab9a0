"""Pages in a real browser: requests, console messages and layout, on screen and in print."""

import os
import re

import pyarrow.parquet as pq
import pytest
from browser import Browser, find_chromium
from made_runs import made_predictions, write_run

from cinefeed.reports import run_page, table_page

PAPER = 680  # CSS pixels between the margins of A4
RUNS = {
    "regression": {"tasks": {"ef": "regression"}},
    "binary": {"tasks": {"sick": "binary"}, "balanced": True},
    "multiclass": {"tasks": {"finding": "multiclass"}},
    "several": {"tasks": {"ef": "regression", "sick": "binary"}},
    "private": {"tasks": {"ef": "regression"}, "private": True},
    "folds": {"tasks": {"ef": "regression"}, "folds": 5},
}
PICTURES = {"private": 0, "folds": 0}


@pytest.fixture(scope="module")
def browser():
    program = find_chromium()
    if program is None:
        reason = "no chromium or google-chrome on PATH"
        if "chromium" in os.environ.get("CINEFEED_REQUIRE", ""):
            pytest.fail(reason)
        pytest.skip(reason)
    with Browser(program) as started:
        yield started


_FAST = "binary"  # the others are as quick to open, but each takes seconds to make


@pytest.fixture(
    scope="module", params=[name if name == _FAST else pytest.param(name, marks=pytest.mark.slow) for name in RUNS]
)
def page(request, tmp_path_factory):
    folder = write_run(tmp_path_factory.mktemp(request.param) / "run", **RUNS[request.param])
    return request.param, run_page(folder)


def page_count(pdf):
    """Return the number of pages of a PDF."""
    return len(re.findall(rb"/Type\s*/Page\b(?!s)", pdf))


def test_a_run_in_a_browser(page, browser):
    name, path = page
    visit = browser.open(path)
    assert visit.requests == [] and visit.console == []
    look = visit.look
    assert look["images"] == PICTURES.get(name, 14) and look["blank"] == 0
    assert look["figures"] == path.read_text().count("<figure") > 5 and look["flat"] == 0
    assert look["wide"] <= 0 and look["beyond"] == 0 and look["clipped"] == 0
    assert ("This page shows patient images" in look["text"]) == (name not in PICTURES)
    narrow = browser.open(path, width=420).look
    assert narrow["wide"] <= 0 and narrow["beyond"] == 0 and narrow["unmarked"] == 0
    printed = browser.as_printed(width=PAPER)
    assert printed["wide"] <= 0 and printed["beyond"] == 0 and printed["clipped"] == 0 and printed["flat"] == 0
    assert 3 <= page_count(browser.print()) <= 30


@pytest.mark.slow
def test_tables_in_a_browser(browser, tmp_path):
    pq.write_table(made_predictions({"sick": "binary"}, parts=("test",)).table, tmp_path / "p.parquet")
    visit = browser.open(table_page(tmp_path / "p.parquet"))
    assert visit.requests == [] and visit.console == [] and visit.look["flat"] == 0 and visit.look["wide"] <= 0


def test_faults_are_detected(browser, tmp_path):
    """A page with requests, errors, empty figures and excess width fails the checks above."""
    bad = tmp_path / "bad.html"
    bad.write_text(
        '<meta charset="utf-8"><main><img src="http://example.invalid/x.png"><img src="data:image/png;base64,AAAA">'
        "<div class='scroll' style='width:50px;overflow:auto'><p style='width:99px'></div>"
        "<figure></figure><div style='width:3000px'>wide</div><script>console.error('no'); missing()</script></main>"
    )
    visit = browser.open(bad)
    assert visit.requests == ["http://example.invalid/x.png"]
    assert len(visit.console) >= 2
    look = visit.look
    assert look["blank"] == 2 and look["flat"] == 1 and look["wide"] > 1000 and look["beyond"] > 0
    assert look["unmarked"] == 1
