"""Feed.preview is the page of `cinefeed inspect`; pages of `show` in a real browser."""

import os
import sys
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest
from browser import Browser, find_chromium

import cinefeed as cf
from cinefeed.reports import inspect_page


@pytest.fixture(scope="module")
def feed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("videos")
    for number in range(8):
        np.save(
            folder / f"a rather long file name of the {number}th video.npy", np.full((9, 24, 32), 30 * number, np.uint8)
        )
    names = sorted(path.name for path in folder.iterdir())
    table = pa.table({"path": names, "finding": ["a long name of a finding that goes on", "none"] * 4})
    return cf.Feed(
        cf.Manifest.from_table(table, root=folder),
        target="finding",
        clip=cf.Clip(frames=4),
        frame=cf.Frame(height=24, width=32, channels=1),
        transforms=[cf.Rotate(degrees=5), cf.Normalize()],
        batch_size=4,
        workers=0,
    )


def test_preview_is_the_page_of_inspect(feed, tmp_path):
    path = feed.preview(out=tmp_path / "preview.html")
    assert path == tmp_path / "preview.html"
    assert path.read_text() == inspect_page(feed, out=tmp_path / "inspect.html").read_text()


def test_preview_in_a_notebook_is_a_frame_without_scripts(feed, monkeypatch):
    displayed = []
    shell = SimpleNamespace(kernel=object())
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: shell))
    monkeypatch.setitem(sys.modules, "IPython.display", SimpleNamespace(HTML=str, display=displayed.append))
    assert feed.preview() is None
    assert len(displayed) == 1 and 'sandbox="allow-downloads"' in displayed[0]
    assert "&lt;!doctype html&gt;" in displayed[0].lower() and "<!doctype" not in displayed[0].lower()


@pytest.fixture(scope="module")
def browser():
    program = find_chromium()
    if program is None:
        if "chromium" in os.environ.get("CINEFEED_REQUIRE", ""):
            pytest.fail("no chromium or google-chrome on PATH")
        pytest.skip("no chromium or google-chrome on PATH")
    with Browser(program) as started:
        yield started


@pytest.mark.parametrize("width", [1200, 400])
def test_pages_of_show_fit_any_window_and_paper(feed, tmp_path, browser, width):
    pages = [feed.show(out=tmp_path / "feed.html"), feed.manifest.show(out=tmp_path / "manifest.html")]
    for page, images in zip(pages, (4, 8), strict=True):
        visit = browser.open(page, width=width)
        assert visit.requests == [] and visit.console == []
        assert visit.look["images"] == images and visit.look["blank"] == 0
        assert visit.look["wide"] <= 0 and visit.look["beyond"] == 0 and visit.look["clipped"] == 0
        printed = browser.as_printed(width=680)
        assert printed["wide"] <= 0 and printed["beyond"] == 0
