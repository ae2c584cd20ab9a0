import base64
import re
import sys
import xml.etree.ElementTree as ET
from html.parser import HTMLParser

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from made_runs import blobs, made_predictions, write_run

from cinefeed import Clip, Feed, Frame, Manifest, Shift, UniformLabels
from cinefeed.core.errors import MissingExtraError, SettingError
from cinefeed.reports import inspect_page, run_page, table_page
from cinefeed.reports.folder import run_data
from cinefeed.reports.page import render

VOID = {"meta", "img", "br", "hr", "link", "input", "image"}
SECTIONS = "results worst saliency training flow labels clips feed failures settings versions methods".split()


class Page(HTMLParser):
    """Links, sections and text of a page, and tags that are not closed."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.downloads: dict[str, str] = {}
        self.sections: list[str] = []
        self.text = ""
        self.faults: list[str] = []
        self._open: list[str] = []
        self.feed(html)
        self.close()
        self.faults += self._open

    def handle_starttag(self, tag, attrs):
        attributes = dict(attrs)
        for name, value in attrs:
            if name.split(":")[-1] in ("href", "src", "srcset", "data", "action", "poster"):
                self.links.append(value)
        if attributes.get("download", "").endswith(".svg"):
            self.downloads[attributes["download"].removesuffix(".svg")] = attributes["href"]
        if tag == "section":
            self.sections.append(attributes["id"])
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self._open.pop()

    def handle_endtag(self, tag):
        if tag in VOID:
            return
        if not self._open or self._open.pop() != tag:
            self.faults.append(f"</{tag}>")

    def handle_data(self, data):
        self.text += data


def requests(html: str) -> list[str]:
    """Return the links that a browser would load: all but data URIs and anchors."""
    links = Page(html).links + re.findall(r"url\(\s*[\"']?([^)\"']+)", html) + re.findall(r"@import[^;]*", html)
    return [link for link in links if not link.startswith(("data:", "#"))]


@pytest.fixture(scope="module")
def html(tmp_path_factory):
    folder = write_run(tmp_path_factory.mktemp("runs") / "run", tasks={"ef": "regression"})
    return run_page(folder).read_text(encoding="utf-8")


def test_a_run_has_every_section(html):
    page = Page(html)
    assert page.faults == []
    assert page.sections == SECTIONS
    assert "Left out" not in page.text
    for word in ("17 of 20", "3 min 04 s", "812", "breaks after 28 of 50 frames", "a/<b>.mp4", 'group = "patient <1>"'):
        assert word in page.text, word


def test_every_figure_can_be_saved_as_svg_with_its_text(html):
    for name, uri in Page(html).downloads.items():
        kind, data = uri.split(",", 1)
        assert kind == "data:image/svg+xml;base64"
        root = ET.fromstring(base64.b64decode(data))
        assert root.tag == "{http://www.w3.org/2000/svg}svg"
        assert root.findall(".//{http://www.w3.org/2000/svg}text"), name


def test_a_page_loads_nothing(html):
    assert requests(html) == []


def test_a_request_is_detected():
    assert requests('<img src="https://x/y.png"><a href="#top"></a><style>b{background:url(/z.png)}</style>') == [
        "https://x/y.png",
        "/z.png",
    ]
    assert Page("<p><b></p>").faults


def test_the_same_run_gives_the_same_page(tmp_path):
    folder = write_run(tmp_path / "run", tasks={"ef": "regression"})
    assert render(run_data(folder)) == render(run_data(folder))


def test_missing_files_are_named(tmp_path):
    folder = write_run(tmp_path / "run", tasks={"ef": "regression"})
    for path in folder.iterdir():
        if path.name not in ("settings.toml", "run.json"):
            path.unlink()
    page = Page(run_page(folder).read_text())
    assert page.sections == SECTIONS and page.downloads == {} and page.faults == []
    assert page.text.count("Left out: ") == len(SECTIONS) + 1  # two files each for results, flow and clips


def test_a_run_under_way_is_shown_as_far_as_it_is(tmp_path):
    folder = write_run(tmp_path / "run", tasks={"ef": "binary"})
    for name in ("run.json", "predictions.parquet", "feed_stats.json"):
        (folder / name).unlink()
    page = Page(run_page(folder, out=tmp_path / "elsewhere" / "page.html").read_text())
    assert "The run has not ended" in page.text and "predictions.parquet is not in the run folder" in page.text
    assert "curves" in page.downloads
    assert not (folder / "report.html").exists()


def test_a_part_with_one_class_has_a_reason_for_missing_curves(tmp_path):
    table = made_predictions({"sick": "binary"}, parts=("test",)).table
    pq.write_table(table.filter(pc.equal(table["target"], "no")), tmp_path / "table.parquet")
    page = Page(table_page(tmp_path / "table.parquet", classes=["no", "yes"]).read_text())
    assert "AUROC" in page.text and "of test: not defined, all targets are 'no'." in page.text
    assert "test has no ROC and precision-recall curves: all its labels are of one class." in page.text
    assert "roc_test" not in page.downloads and "confusion_test" in page.downloads


def test_a_run_without_an_assessment_has_no_results(tmp_path):
    folder = write_run(tmp_path / "run", tasks={"ef": "binary"})
    (folder / "assessment.json").unlink()
    page = Page(run_page(folder).read_text())
    assert page.sections == SECTIONS and page.faults == []
    assert "Left out: assessment.json is not in the run folder." in page.text
    assert not {name for name in page.downloads if name.endswith(("_val", "_test"))}


def test_errors_of_the_run_folder_and_the_output(tmp_path):
    with pytest.raises(SettingError, match="not a run folder"):
        run_page(tmp_path)
    folder = write_run(tmp_path / "run", tasks={"ef": "regression"})
    (tmp_path / "file").write_text("")
    with pytest.raises(SettingError, match="cannot be written"):
        run_page(folder, out=tmp_path / "file" / "page.html")


@pytest.mark.parametrize("package", ["matplotlib", "jinja2"])
def test_without_the_extra_the_error_names_it(tmp_path, monkeypatch, package):
    folder = write_run(tmp_path / "run", tasks={"ef": "regression"})
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingExtraError, match=r"cinefeed\[report\]"):
        run_page(folder)


@pytest.fixture
def feed(tmp_path):
    clips = blobs(12)[..., 0]
    for i, clip in enumerate(clips):
        np.save(tmp_path / f"{i}.npy", clip)
    table = pa.table({"path": [f"{i}.npy" for i in range(12)], "age": [30, 60, 61, 62, 62, 63, 64, 65, 65, 66, 67, 68]})
    return Feed(
        Manifest.from_table(table, root=tmp_path),
        target="age",
        clip=Clip(frames=8),
        frame=Frame(height=48, width=48, channels=1),
        transforms=[Shift(pixels=4)],
        sampler=UniformLabels(bins=3),
        batch_size=4,
        workers=0,
    )


def test_a_feed_before_training(feed, tmp_path):
    failures = [{"id": "x", "path": "x.mp4", "error": "no frame decodes"}]
    path = inspect_page(feed, out=tmp_path / "inspect.html", val=feed.evaluation(feed.manifest), failures=failures)
    html = path.read_text()
    page = Page(html)
    assert page.faults == [] and requests(html) == []
    assert set(page.downloads) == {"labels", "balance", "clips", "pixels"}
    assert page.sections == ["flow", "labels", "clips", "failures"]
    assert "12 videos, 12 draws an epoch" in page.text and "no frame decodes" in page.text
    assert "x.mp4" in page.text and "<th>path</th>" in html
    same = [{"id": "x.mp4", "path": "x.mp4", "error": "no frame decodes"}]
    html = inspect_page(feed, out=path, failures=same).read_text()
    assert html.count("x.mp4") == 1 and "<th>path</th>" not in html


def test_a_feed_without_a_label(feed, tmp_path):
    bare = Feed(feed.manifest, target=None, clip=feed.settings.clip, frame=feed.settings.frame, batch_size=4, workers=0)
    assert set(Page(inspect_page(bare, out=tmp_path / "x.html").read_text()).downloads) == {"clips", "pixels"}


def test_text_from_the_data_is_escaped(tmp_path):
    table = pa.table({"path": ["a.npy"] * 4, "id": list("wxyz"), "kind": ["<script>alert(1)</script>", "b $x$"] * 2})
    np.save(tmp_path / "a.npy", blobs(1)[0, ..., 0])
    feed = Feed(
        Manifest.from_table(table, root=tmp_path),
        target="kind",
        clip=Clip(frames=4),
        frame=Frame(height=32, width=32, channels=1),
        batch_size=4,
        workers=0,
    )
    html = inspect_page(feed, out=tmp_path / "x.html").read_text()
    assert "<script" not in html
    assert "b $x$" in Page(html).text
