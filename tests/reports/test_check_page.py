import re
import sys

import numpy as np
import pyarrow as pa
import pytest
from test_page import Page, requests

from cinefeed.core.errors import MissingExtraError, SettingError
from cinefeed.data.manifest.manifest import Manifest
from cinefeed.data.quality import check_manifest
from cinefeed.reports.check import check_page, render


def blocks(number):
    """A video of its own for each number, uint8 (6, 24, 30)."""
    coarse = np.random.default_rng(number).integers(0, 250, (6, 8, 10), np.uint8)
    return coarse.repeat(3, axis=1).repeat(3, axis=2)


@pytest.fixture(scope="module")
def manifest(tmp_path_factory):
    """Thirty videos of fifteen patients: one is gone, two are copies, two alike, and the site tells the kind."""
    folder = tmp_path_factory.mktemp("page")
    for number in range(30):
        np.save(folder / f"v{number:02}.npy", blocks(number))
    np.save(folder / "v01.npy", blocks(0))
    np.save(folder / "v02.npy", np.clip(blocks(3).astype(int) + 3, 0, 255).astype(np.uint8))
    rows = range(30)
    columns = {
        "path": [f"v{row:02}.npy" for row in rows],
        "id": [f"<id {row}>" for row in rows],
        "kind": ["ill" if row % 4 < 2 else "well" for row in rows],
        "site": ["north" if row % 4 < 2 else "south" for row in rows],
        "patient": [f"p{row // 2}" for row in rows],
        "split": ["train" if row < 20 else "val" if row < 25 else "test" for row in rows],
    }
    scanned = Manifest.scan(folder, labels=pa.table(columns), progress=False)
    (folder / "v29.npy").unlink()
    return scanned


@pytest.fixture(scope="module")
def report(manifest):
    return check_manifest(manifest, target="kind", group="patient", nuisance=["site"], progress=False)


def test_the_page_has_every_section_and_asks_for_nothing(report, manifest, tmp_path):
    html = check_page(report, manifest, out=tmp_path / "new" / "check.html").read_text(encoding="utf-8")
    page = Page(html)
    assert page.faults == []
    assert page.sections == ["to-do", "findings", "pairs", "shortcuts", "classes"]
    assert set(page.downloads) == {"shortcuts", "classes"}
    assert requests(html) == []
    assert html.count("data:image/png") == 4 and "This page shows patient images" in page.text
    for each in report.findings:
        assert each.title in page.text
    assert "v29.npy (<id 29>)" in page.text


def test_errors_come_first(report, manifest):
    html = render(report, manifest)
    marks = re.findall(r'class="mark ([a-z-]+)"', html)
    assert marks[0] == "error"
    assert marks == sorted(marks, key=["error", "warning", "note-mark"].index)


def test_a_private_page_has_no_path_and_no_picture(manifest):
    report = check_manifest(manifest, target="kind", group="patient", private=True, progress=False)
    html = render(report, manifest)
    assert ".npy" not in html
    assert "data:image/png" not in html and "patient images" not in html
    assert "id 29" in html


def test_a_clean_set_says_so(tmp_path):
    for number in range(3):
        np.save(tmp_path / f"v{number}.npy", blocks(number))
    manifest = Manifest.scan(tmp_path, progress=False)
    page = Page(render(check_manifest(manifest, progress=False), manifest))
    assert page.faults == []
    assert "Nothing needs to be done." in page.text and "patient images" not in page.text
    assert page.sections == ["to-do", "findings"]


@pytest.mark.parametrize("dtype", [np.uint16, np.float32])
def test_deep_pictures_are_stretched(tmp_path, dtype):
    for name in ("a", "b"):
        np.save(tmp_path / f"{name}.npy", blocks(1).astype(dtype) * 9)
    manifest = Manifest.scan(tmp_path, progress=False)
    assert render(check_manifest(manifest, progress=False), manifest).count("data:image/png") == 2


def test_a_regression_has_its_figure(tmp_path):
    rng = np.random.default_rng(0)
    for number in range(40):
        np.save(tmp_path / f"v{number:02}.npy", blocks(number) // 2 + number * 3)
    ages = pa.table(
        {"path": [f"v{number:02}.npy" for number in range(40)], "age": 20 + rng.normal(0, 2, 40) + range(40)}
    )
    manifest = Manifest.scan(tmp_path, labels=ages, progress=False)
    report = check_manifest(manifest, target="age", progress=False)
    assert "label_predicted_by_frames" in {each.code for each in report.findings}
    page = Page(render(report, manifest))
    assert page.sections == ["to-do", "findings", "shortcuts"]
    assert "brightness" in page.text


def test_what_is_missing_is_said(report, manifest, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    with pytest.raises(SettingError, match="cannot be written"):
        check_page(report, manifest, out=tmp_path / "file" / "check.html")
    monkeypatch.setitem(sys.modules, "jinja2", None)
    with pytest.raises(MissingExtraError, match=r"cinefeed\[report\]"):
        render(report, manifest)
