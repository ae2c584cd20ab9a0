"""What notebooks and pages show of manifests, splits, feeds, batches and transforms."""

import base64
import io
import re
import shutil
import stat
import sys
from html.parser import HTMLParser
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest

import cinefeed as cf
from cinefeed.core import html
from cinefeed.core.charts import bars, bin_edges, histogram
from cinefeed.core.errors import SettingError
from cinefeed.core.moving import animated_webp, as_levels, contact_sheet
from cinefeed.core.progress import shown_progress
from cinefeed.data.manifest.rows import Rows
from cinefeed.transforms import Compose

HOSTILE = '<script>alert(1)</script>"><img src=x onerror=alert(1)>\x1b\u202e'
VOID = {"img", "meta", "br"}


class Reader(HTMLParser):
    """Collects tags, attributes and text, and checks that every tag is closed."""

    def __init__(self, source):
        super().__init__()
        self.tags, self.attributes, self.words, self.stack = [], [], [], []
        self.feed(source)
        self.close()
        assert self.stack == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in VOID:
            self.stack.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs

    def handle_endtag(self, tag):
        assert self.stack.pop() == tag

    def handle_data(self, data):
        self.words.append(data)

    @property
    def text(self):
        return " ".join(self.words)


def check_html(source, *, images):
    """Assert that HTML is well formed, has no script and loads nothing, and return its reader."""
    reader = Reader(source)
    assert "script" not in reader.tags and "link" not in reader.tags and "iframe" not in reader.tags
    assert not [name for name, _ in reader.attributes if name.startswith("on")]
    links = [value for name, value in reader.attributes if name in ("src", "href")]
    assert all(value.startswith("data:image/webp;base64,") for value in links) and "url(" not in source
    assert reader.tags.count("img") == images
    assert not any(ord(letter) < 32 and letter != "\n" for letter in reader.text) and "\u202e" not in source
    return reader


@pytest.fixture(scope="module")
def manifest(tmp_path_factory):
    folder = tmp_path_factory.mktemp("videos")
    rng = np.random.default_rng(0)
    for number in range(20):
        np.save(folder / f"{number:02d}.npy", rng.integers(0, 255, (9, 24, 32), dtype=np.uint8))
    table = pa.table(
        {
            "path": [f"{number:02d}.npy" for number in range(20)],
            "age": [30.5 + number for number in range(20)],
            "finding": [HOSTILE if number < 4 else "none" for number in range(20)],
            "patient": [f"p{number // 2}" for number in range(20)],
            HOSTILE: ["a", "b"] * 10,
        }
    )
    return cf.Manifest.scan(folder, labels=table, on="path", progress=False)


@pytest.fixture(scope="module")
def feed(manifest):
    return feed_of(manifest, target="finding", sampler=cf.BalancedClasses())


def feed_of(manifest, **options):
    transforms = [cf.Rotate(degrees=5), cf.Brightness(factor=0.1), cf.Normalize()]
    defaults = {"clip": cf.Clip(frames=4), "frame": cf.Frame(height=16, width=16, channels=1), "transforms": transforms}
    return cf.Feed(manifest, **(defaults | {"batch_size": 5, "workers": 0} | options))


@pytest.fixture
def notebook(monkeypatch):
    """A notebook that keeps what is displayed, in place of IPython."""
    displayed = []

    class Handle:
        def update(self, content):
            displayed[-1] = content

    def display(content, display_id=False):
        displayed.append(content)
        return Handle()

    shell = SimpleNamespace(kernel=object())
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: shell))
    monkeypatch.setitem(sys.modules, "IPython.display", SimpleNamespace(HTML=str, display=display))
    return displayed


def objects(manifest, feed):
    parts = manifest.split(val=0.2, test=0.2, group="patient", stratify="age")
    return [manifest, parts, feed, feed.evaluation(parts.val), feed.batch(0), feed.compose]


def test_a_repr_is_short_and_opens_no_video(manifest, feed, monkeypatch):
    displayed = objects(manifest, feed)
    monkeypatch.setattr(Rows, "open", lambda *args, **options: pytest.fail("a video was opened"))
    for each in displayed:
        assert len(repr(each).splitlines()) < 15 and len(repr(each)) < 1000, repr(each)
        assert " at 0x" not in repr(each) and "\x1b" not in repr(each) and "\u202e" not in repr(each)
        check_html(each._repr_html_(), images=0)


def test_what_reprs_contain(manifest, feed):
    assert repr(manifest).startswith("Manifest(20 samples, root=") and "labels: age, finding, patient" in repr(manifest)
    parts = manifest.split(val=0.2, test=0.2, group="patient")
    assert repr(parts) == "Parts(train=12, val=4, test=4 samples)"
    lines = [line.split(maxsplit=1) for line in repr(feed).splitlines()]
    assert lines[0] == ["Feed", "of 20 samples, target 'finding'"]
    assert dict(lines[1:])["batch"] == "5 x (4, 16, 16, 1) float32"
    assert dict(lines[1:])["transforms"] == "Rotate(degrees=5), Brightness(factor=0.1), Normalize()"
    assert repr(feed.evaluation(parts.val)).startswith("Evaluation feed of 4 samples")
    assert repr(feed.compose).startswith(
        "Compose([Rotate(degrees=5), Brightness(factor=0.1), Normalize()], frame=Frame("
    )


def test_a_batch_lists_its_arrays_with_their_ranges(manifest):
    feed = feed_of(manifest, target=["age", "finding"], transforms=[], inputs=cf.Inputs(covariates=["age"]))
    batch = feed.batch(0)
    rows = {line.split("  ")[1].strip(): line for line in repr(batch).splitlines()[1:]}
    names = "clips targets['age'] targets['finding'] weights['age'] weights['finding'] ids valid covariates['age']"
    assert list(rows) == names.split()
    assert f"uint8    {batch.clips.min()} to {batch.clips.max()}" in rows["clips"]
    assert rows["valid"].endswith("all True") and "'" in rows["ids"]
    clips = cf.Feed(manifest, target="clip", clip=cf.Clip(frames=4), frame=cf.Frame(height=8, width=8, channels=1))
    assert "targets" not in repr(clips.batch(0)), "they are the clips"


def test_numbers_that_are_not_finite_are_counted(manifest):
    text = repr(feed_of(manifest, target=None).batch(0))
    assert re.search(r"targets .* 5 NaN or infinite", text)


def test_show_outside_a_notebook_writes_a_page_of_its_owner_and_prints_the_path(feed, capsys):
    path = feed.show()
    try:
        assert str(path) in capsys.readouterr().out
        assert path.name == "feed.html" and stat.S_IMODE(path.parent.stat().st_mode) == 0o700
        page = path.read_text()
        assert page.startswith("<!doctype html>") and "default-src 'none'; img-src data:" in page
        check_html(page, images=5)
    finally:
        shutil.rmtree(path.parent)


def test_show_writes_the_page_that_is_named(manifest, feed, tmp_path, notebook, capsys):
    for number, each in enumerate(objects(manifest, feed)):
        path = each.show(out=tmp_path / f"{number}.html")
        check_html(path.read_text(), images=[8, 0, 5, 4, 5, 0][number])
    assert notebook == [] and capsys.readouterr().out == ""
    with pytest.raises(SettingError, match="choose another path"):
        feed.show(out=tmp_path)


def test_show_in_a_notebook_displays_once_and_writes_no_file(manifest, feed, notebook, capsys, monkeypatch):
    monkeypatch.setattr(html, "temporary_page", lambda title: pytest.fail("a page was written"))
    for number, each in enumerate(objects(manifest, feed)):
        assert each.show() is None
        assert len(notebook) == number + 1
        check_html(notebook[-1], images=[8, 0, 5, 4, 5, 0][number])
    assert capsys.readouterr().out == ""


def test_names_are_escaped_and_legible(manifest, feed):
    for each in (manifest, feed):
        assert "<script>alert(1)</script>" in check_html(each._repr_html_(), images=0).text
    reader = check_html(contact_sheet([np.zeros((2, 4, 4, 1), np.uint8)], [HOSTILE]), images=1)
    assert "<script>" in reader.text


def test_a_private_manifest_shows_no_pictures(manifest, tmp_path):
    private = manifest.as_private()
    pages = [private.show(out=tmp_path / "m.html"), feed_of(private, target="age").show(out=tmp_path / "f.html")]
    for page in pages:
        reader = check_html(page.read_text(), images=0)
        assert "private" in reader.text and "00.npy" not in reader.text and str(manifest.root) not in reader.text


def test_a_video_that_cannot_be_read_is_named_in_its_place(manifest, tmp_path):
    table = pa.table({"path": ["gone.npy", "00.npy"], "age": [1.0, 2.0]})
    page = cf.Manifest.from_table(table, root=manifest.root).show(out=tmp_path / "m.html")
    assert "gone.npy: cannot be read" in check_html(page.read_text(), images=1).text


def test_the_chart_of_a_feed_counts_the_draws_of_its_plan(manifest):
    feed = feed_of(manifest, target="finding", sampler=cf.BalancedClasses(), seed=3)
    words = [word for word in check_html(feed._repr_html_(), images=0).words if word.strip()]
    start = words.index("as fed (20 draws)") + 1
    draws = feed.labels[feed.plan().rows]
    counts = {name: (np.sum(feed.labels == name), np.sum(draws == name)) for name in feed.spec.classes}
    numbers = [words[start + 3 * place + 1 : start + 3 * place + 3] for place in range(2)]
    assert numbers == [[str(raw), str(fed)] for raw, fed in counts.values()]
    assert counts["none"] == (16, 10), "which balancing changed"


def test_bars_are_as_long_as_their_counts():
    chart = bars(["a", "b"], {"data": [1, 4]})
    assert [float(width) for width in re.findall(r"width:([0-9.]+)%", chart)] == [20.0, 80.0]
    assert "and 5 more classes" in bars(list(range(25)), {"data": list(range(25))})


def test_the_steps_of_a_histogram_are_as_high_as_their_counts():
    chart = histogram({"data": [1, 4], "fed": [2, 2]}, edges=[0, 1, 2], name="age", whole=False)
    points = [re.findall(r"[0-9.]+,([0-9.]+)", line) for line in re.findall(r'points="([^"]+)"', chart)]
    assert points[0] == ["100", "75.00", "75.00", "0.00", "0.00", "100"]
    assert points[1] == ["100", "50.00", "50.00", "50.00", "50.00", "100"]
    check_html(chart, images=0)


@pytest.mark.parametrize("values", [[5.0], [5.0, 5.0], [-3.0, 0.0, 2.0], [1e9, 2e9], [0.1, 0.2, 0.3]])
def test_a_histogram_of_any_numbers_has_ticks(values):
    edges, whole = bin_edges(np.array(values))
    counts = np.histogram(values, bins=edges)[0]
    assert counts.sum() == len(values)
    reader = check_html(histogram({"data": counts}, edges=edges, name="x", whole=whole), images=0)
    assert "-0" not in reader.words and len(reader.words) >= 3


def test_columns_of_patients_have_no_chart(manifest):
    many = cf.Manifest.from_table(
        pa.table({"path": [f"{n}.npy" for n in range(40)], "patient": list(map(str, range(40)))})
    )
    assert 'class="bars"' not in many._repr_html_()
    assert 'class="bars"' in manifest._repr_html_()


def test_clips_move_and_large_ones_are_reduced():
    from PIL import Image

    clip = np.zeros((50, 400, 500, 3), np.uint8)
    clip[25:, :, 250:, 0] = 255
    reader = check_html(contact_sheet([clip], ["one"]), images=1)
    uri = dict(reader.attributes)["src"]
    picture = Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2])))
    assert picture.n_frames > 1 and max(picture.size) < 300
    first = np.asarray(picture.convert("RGB")).astype(int)
    picture.seek(picture.n_frames - 1)
    last = np.asarray(picture.convert("RGB")).astype(int)
    assert np.abs(last - first)[:, -50:, 0].mean() > 200 > 30 > np.abs(last - first)[:, :50].mean()


def test_one_frame_is_a_picture_and_floats_have_their_own_range():
    assert animated_webp(np.zeros((1, 8, 8, 1), np.uint8)).startswith("data:image/webp;base64,")
    levels = as_levels(np.array([[0.0, 2.0], [10.0, 30.0], [np.nan, 1.0]]).reshape(3, 2, 1, 1, 1))
    assert levels.ravel().tolist() == [0, 255, 0, 255, 0, 255]


def test_compose_lists_what_is_fused():
    frame = cf.Frame(height=16, width=16, channels=1)
    compose = Compose([cf.Rotate(degrees=5), cf.Brightness(factor=0.1), cf.Normalize()], frame=frame)
    reader = check_html(compose._repr_html_(), images=0)
    assert reader.tags.count("li") == len(compose.explain().splitlines()) == 3
    steps = [f"{', '.join(names)}{': ' if how else ''}{how}" for names, how in compose.steps()]
    assert [line.partition(". ")[2] for line in compose.explain().splitlines()] == steps


def test_progress_in_a_notebook_is_one_bar_that_moves(notebook):
    with shown_progress(None, what="scan <b>") as progress:
        for done in range(1, 4):
            progress(done, 3)
    assert len(notebook) == 1 and 'value="3" max="3"' in notebook[0]
    assert "scan &lt;b&gt;" in notebook[0] and "3 of 3" in notebook[0]
    with shown_progress(False, what="scan") as progress:
        progress(1, 1)
    assert len(notebook) == 1


def test_a_shell_without_a_kernel_is_no_notebook(monkeypatch):
    shell = SimpleNamespace()
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: shell))
    assert not html.in_notebook()
    shell.kernel = object()
    assert html.in_notebook()
