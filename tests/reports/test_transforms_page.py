import base64
import re
import sys

import cv2
import numpy as np
import pyarrow as pa
import pytest
from test_page import Page, requests

from cinefeed import Manifest, transforms
from cinefeed.cli import main
from cinefeed.config import parse, to_toml
from cinefeed.core.errors import ClipError, MissingExtraError, SettingError
from cinefeed.reports.parameter_extremes import graded, meaning, parameters_in_words, single, summary
from cinefeed.reports.transforms import render, transforms_page
from cinefeed.transforms import ClipInfo, Contrast, FrameDrop, Noise, OneOf, Rotate, Shift, Sometimes, Window
from cinefeed.transforms.fuse import compact_repr

LISTED = [
    {"name": "Rotate", "degrees": 25},
    {"name": "Flip"},
    {"name": "OneOf", "weights": [3, 1], "transforms": [{"name": "Blur", "sigma": 2}, {"name": "Noise", "std": 0.1}]},
    {"name": "Window", "level": 60, "width": 100},
    {"name": "Contrast", "factor": [0.5, 1.5]},
    {"name": "Reverse"},
    {"name": "Normalize", "mode": "range", "high": 255},
]


def settings_of(listed, **sections):
    table = {
        "data": {"manifest": "m.parquet", "target": "", "split": {"group": False}},
        "clip": {"frames": 6},
        "frame": {"height": 16, "width": 20, "channels": 1},
        "transforms": listed,
        "train": {"out": "unused"},
    }
    return parse(table | sections)


@pytest.fixture(scope="module")
def manifest(tmp_path_factory):
    """Four videos of ten frames, whose brightness is their number."""
    folder = tmp_path_factory.mktemp("videos")
    for number in range(4):
        frames = np.arange(10, dtype=np.uint8)[:, None, None] * 10 + np.arange(20, dtype=np.uint8)
        np.save(folder / f"v{number}.npy", np.broadcast_to(frames, (10, 16, 20)) + np.uint8(number))
    table = pa.table({"path": [f"v{number}.npy" for number in range(4)], "id": [f"id {number}" for number in range(4)]})
    return Manifest.from_table(table, root=folder)


@pytest.fixture(scope="module")
def html(manifest, tmp_path_factory):
    out = tmp_path_factory.mktemp("page") / "new" / "transforms.html"
    return transforms_page(manifest, settings=settings_of(LISTED), out=out).read_text(encoding="utf-8")


def pictures(html):
    """Every picture of a page, as pixels."""
    encoded = re.findall(r'src="data:image/png;base64,([^"]+)"', html)
    return [cv2.imdecode(np.frombuffer(base64.b64decode(each), np.uint8), cv2.IMREAD_GRAYSCALE) for each in encoded]


def captions(html):
    pairs = re.findall(r"<figcaption><b>(.*?)</b>(?: · (.*?))?</figcaption>", html)
    return [" · ".join(part for part in each if part) for each in pairs]


def test_the_page_has_every_section_and_asks_for_nothing(html):
    page = Page(html)
    assert page.faults == []
    assert page.sections == ["steps", "transforms", "chain"]
    assert requests(html) == []
    assert "<script" not in html and "This page shows patient images" in page.text
    for words in ("one look-up table", "one of 2 (75 %)", "7 transforms", "v0.npy", "v3.npy", "uint8 → float32"):
        assert words in page.text, words


def test_each_is_shown_weak_to_strong_with_its_parameters(html):
    listed = captions(html)
    assert listed[:4] == ["original", "low · degrees -25", "middle · degrees 0", "high · degrees 25"]
    assert "low · horizontal no, vertical no" in listed and "high · horizontal yes, vertical no" in listed
    assert "always · level 60, width 100" in listed
    assert "always · no random parameters · float32 from 0.102 to 0.788" in listed  # 20 and 89 in a window of 10 to 110
    # as it is and: Rotate 3, Flip 2, Blur 3, Noise 3, Window 1, Contrast 3, Reverse 2, Normalize 1; of 3 videos 3 draws
    assert len(listed) == len(pictures(html)) == 8 + 18 + 3 * 4


def test_the_pictures_are_what_the_transforms_make(html):
    as_it_is, low, middle, high = pictures(html)[:4]
    assert as_it_is.shape == (16, 3 * 20 + 2)
    first = 20 + np.arange(20)  # frame 2 of 0 to 9 begins the clip in the middle
    assert (as_it_is[:, :20] == first).all()
    assert (middle == as_it_is).all() and (low != as_it_is).any() and (high != low).any()
    flipped = pictures(html)[6]
    assert (flipped[:, :20] == first[::-1]).all()


def test_transforms_of_time_are_strips_that_name_their_frames(html):
    listed = captions(html)
    at = listed.index("high · reversed yes · frames 7 6 5 4 3 2")
    assert listed[at - 1] == "low · reversed no · frames 2 3 4 5 6 7"
    strip = pictures(html)[at]
    assert strip.shape == (16, 6 * 21 - 1)
    numbers = strip[0, ::21].astype(int)
    assert (np.diff(numbers) < 0).all()


def test_what_always_happens_before_has_happened(html):
    listed, images = captions(html), pictures(html)
    window = listed.index("always · level 60, width 100")
    assert (images[window] == images[window + 1]).all()  # "original" of the Contrast that follows
    assert (images[window - 1] != images[window]).any()


def test_what_changes_labels_is_marked(html, manifest):
    assert html.count("May change the label") == 5  # Rotate, Flip, Contrast, Reverse, Normalize
    assert "May change" not in render(manifest, settings=settings_of([{"name": "Blur", "sigma": 1}]))


def test_a_private_page_has_no_picture_and_no_path(manifest):
    html = render(manifest.as_private(), settings=settings_of(LISTED))
    assert pictures(html) == [] and "data:image" not in html and "patient images" not in html
    assert ".npy" not in html and "id 3" in html
    assert captions(html)[:3] == ["low · degrees -25", "middle · degrees 0", "high · degrees 25"]
    assert "no pictures" in Page(html).text


@pytest.mark.parametrize("dtype", ["uint16", "float32"])
def test_deep_frames_keep_their_brightness_to_each_other(manifest, dtype):
    frame = {"height": 16, "width": 20, "channels": 3, "dtype": dtype}
    as_it_is, darker = pictures(
        render(manifest, settings=settings_of([{"name": "Brightness", "factor": [0.5, 0.5]}], frame=frame))
    )[:2]
    assert as_it_is[:, -20:].max() == 255
    assert 100 < darker[:, -20:].max() < 135


def test_of_several_views_the_first_is_shown(tmp_path):
    for number in range(4):
        np.save(tmp_path / f"{number}.npy", np.full((6, 16, 20), 50 * number, np.uint8))
    table = pa.table({"path": [f"{n}.npy" for n in range(4)], "study": list("aabb"), "view": ["2ch", "4ch"] * 2})
    studies = Manifest.from_table(table, root=tmp_path).pivot(by="view", within="study")
    html = render(studies, settings=settings_of([{"name": "Shift", "pixels": 2}]))
    assert "the view 2ch is shown" in Page(html).text
    assert [int(each[8, 10]) for each in pictures(html)] == [0] * 8 + [100] * 4


def test_what_cannot_be_shown_is_said(manifest, tmp_path, monkeypatch):
    with pytest.raises(SettingError, match="no transform to show"):
        transforms_page(manifest, settings=settings_of([]), out=tmp_path / "x.html")
    with pytest.raises(ClipError, match=r"row 0, v0.npy: Shift\(mm=5.0\) needs the pixel size"):
        render(manifest, settings=settings_of([{"name": "Shift", "mm": 5}]))
    monkeypatch.setitem(sys.modules, "jinja2", None)
    with pytest.raises(MissingExtraError, match=r"cinefeed\[report\]"):
        render(manifest, settings=settings_of(LISTED))


def test_the_command_writes_the_page(manifest, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    manifest.write(tmp_path / "m.parquet")
    (tmp_path / "run.toml").write_text(to_toml(settings_of(LISTED)))
    assert main(["inspect", "--transforms", "run.toml"]) == 0
    assert "transforms.html" in capsys.readouterr().out
    assert "Rotate(degrees=25)" in (tmp_path / "transforms.html").read_text()
    assert (
        main(["inspect", "m.parquet", "--transforms", "run.toml", "--out", "p.html", "--private", "--rotate", "9"]) == 0
    )
    page = (tmp_path / "p.html").read_text()
    assert "data:image" not in page and "Rotate(degrees=9)" in page
    assert main(["inspect", "--transforms", "run.toml", "--config", "run.toml"]) == 2
    assert "give one" in capsys.readouterr().err


INFO = ClipInfo(frames=8, height=32, width=32, channels=3)


def test_strength_goes_from_end_to_end():
    assert [parameters["factor"] for _, parameters in graded(Contrast(factor=(0.5, 2.0)), INFO)] == [0.5, 1.25, 2.0]
    assert [parameters["degrees"] for _, parameters in graded(Rotate(degrees=(0, 90, 180)), INFO)] == [0.0, 90.0, 180.0]
    assert [name for name, _ in graded(Rotate(degrees={0, 180}), INFO)] == ["low", "high"]
    assert [name for name, _ in graded(Window(level=3, width=2), INFO)] == ["always"]
    lost = [sum(parameters["lost"]) for _, parameters in graded(FrameDrop(share=1.0), INFO)]
    assert lost[0] == 0 and 0 < lost[1] < lost[2] == 8
    assert graded(Shift(pixels=4), INFO) == graded(Shift(pixels=4), INFO)


@pytest.mark.parametrize("name", sorted({*transforms.__all__} - {"Call", "ClipInfo", "Compose", "Transform"}))
def test_every_transform_is_summed_up_in_a_sentence(name):
    kind = getattr(transforms, name)
    assert summary(object.__new__(kind)).endswith(".")
    assert meaning(object.__new__(kind)) != summary(object.__new__(kind))


def test_settings_are_said_as_they_are_written():
    assert compact_repr(Rotate(degrees={180.0, 0.5})) == "Rotate(degrees={0.5, 180})"
    assert compact_repr(Contrast(factor=(0.25, 1.0))) == "Contrast(factor=(0.25, 1))"


def test_what_is_within_choices_is_shown_one_by_one():
    choice = Sometimes(
        transform=OneOf(transforms=(Noise(std=0.1), Sometimes(transform=Rotate(degrees=3)))), probability=0.25
    )
    assert [(type(each).__name__, remark) for each, remark in single([choice])] == [
        ("Noise", "in 25 % of clips, then one of 2 (50 %)"),
        ("Rotate", "in 25 % of clips, then one of 2 (50 %), then in 50 % of clips"),
    ]
    assert parameters_in_words({"boxes": [], "order": ["a"], "seed": 1}) == "boxes none, order a"
