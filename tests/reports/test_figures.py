import subprocess
import sys
import xml.etree.ElementTree as ET

import numpy as np
import pytest
from made_runs import blobs

from cinefeed.reports.data import Pixels
from cinefeed.reports.figures import clips_sheet, feed_time_figure, labels_figure, learning_curves, pixels_figure
from cinefeed.reports.prediction_figures import confusion_figure, pr_figure, predicted_vs_true, roc_figure

RNG = np.random.default_rng(0)
SVG = "{http://www.w3.org/2000/svg}"


def words(svg: str) -> str:
    return " ".join("".join(each.itertext()) for each in ET.fromstring(svg).iter(f"{SVG}text"))


@pytest.mark.parametrize("raw", [RNG.normal(60, 9, 300), RNG.integers(20, 50, 300), np.array([5.0]), np.full(4, 0.25)])
def test_numbers_are_shown_raw_and_fed(raw):
    text = words(labels_figure(raw, fed=np.repeat(raw, 2), name="age"))
    assert f"data ({len(raw)} videos)" in text and f"as fed ({2 * len(raw)} draws)" in text and "age" in text


def test_classes_are_counted_raw_and_fed():
    text = words(labels_figure(["a"] * 7 + ["b"], fed=["a"] * 4 + ["b"] * 5, classes=["a", "b", "absent"]))
    assert all(word in text for word in ("a b absent", "7", "5"))


def test_many_classes_are_cut_off_aloud():
    names = [f"word{i:02d}" for i in range(60)]
    assert "the first 40 of 60 classes" in words(labels_figure(names, fed=names, classes=names))


@pytest.mark.parametrize("counts", [[5, 0, 3], [7]])
def test_levels_are_shown_as_fed(counts):
    edges = np.arange(len(counts) + 1.0)
    text = words(pixels_figure(np.array(counts), edges=edges, dtype="uint8"))
    assert "level as fed (uint8)" in text and "share of the pixels" in text
    total = max(sum(counts), 1)
    summary = Pixels(dtype="uint8", edges=edges, counts=np.array(counts)).summary
    share = f"{100 * counts[0] / total:.1f} %"
    assert summary.startswith(f"{np.count_nonzero(counts)} of {len(counts)} levels are used; {share} of the pixels")


@pytest.mark.parametrize(("count", "channels"), [(1, 1), (3, 3), (8, 1)])
def test_a_sheet_has_a_picture_and_a_caption_for_each_clip(count, channels):
    svg = clips_sheet(blobs(count, channels=channels), captions=[f"clip {i} <&>" for i in range(count)])
    assert len(list(ET.fromstring(svg).iter(f"{SVG}image"))) == count
    assert words(svg).count("<&>") == count


def test_a_sheet_shows_the_pixels_that_were_fed():
    import base64
    import re

    import cv2

    clips = RNG.integers(0, 255, (1, 3, 20, 30, 3)).astype(np.uint8)
    png = base64.b64decode(re.search(r"base64,([^\"]+)", clips_sheet(clips, captions=["x"])).group(1))
    strip = cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
    assert np.array_equal(strip[:, :30], clips[0, 0]) and np.array_equal(strip[:, 62:], clips[0, 2])


def test_curves_have_a_panel_for_each_metric():
    history = {"loss": [3.0, 2.0], "val_loss": [3.0, float("nan")], "val_r2": [0.1, 0.4], "learning_rate": [1e-3, 1e-3]}
    text = words(learning_curves(history, best_epoch=2))
    assert all(word in text for word in ("loss", "R²", "learning rate", "training", "validation"))
    assert words(learning_curves({"loss": [1.0]}))


def test_time_is_shared_out():
    stages = {"read": 1.0, "decode": 12.0, "transform": 7.0}
    text = words(feed_time_figure(stages, wait_seconds=5.0, elapsed_seconds=20.0, workers=2))
    assert all(word in text for word in ("decode 30%", "idle 50%", "waits for the feed 25%", "2 workers"))


def test_predictions_of_a_number():
    true = RNG.normal(60, 10, 50)
    text = words(predicted_vs_true(true, scores=true + 1, name="age"))
    assert "RMSE 1" in text and "predicted age" in text
    assert "not defined" in words(predicted_vs_true([1.0], scores=[2.0]))
    assert len(predicted_vs_true(RNG.normal(0, 1, 20_000), scores=RNG.normal(0, 1, 20_000))) < 400_000


@pytest.mark.parametrize("classes", [["no", "yes"], ["a", "b", "c"], [f"c{i:02d}" for i in range(30)]])
def test_predictions_of_classes(classes):
    count = len(classes)
    targets = np.arange(120) % count
    scores = RNG.dirichlet(np.ones(count), 120) * 0.5 + np.eye(count)[targets] * 0.5
    options = {"scores": scores[:, 1] if count == 2 else scores, "classes": classes}
    assert classes[-1] in words(confusion_figure(targets, **options))
    assert "AUROC" in words(roc_figure(targets, **options))
    assert "Average precision" in words(pr_figure(targets, **options))


def test_names_that_matplotlib_would_hide_or_warn_of():
    targets, scores = np.arange(60) % 3, RNG.dirichlet(np.ones(3), 60)
    text = words(roc_figure(targets, scores=scores, classes=["_a", "心臓", "b"]))  # a warning would fail the test
    assert "_a 0." in text and "心臓 0." in text


def test_curves_are_called_as_everywhere():
    text = words(learning_curves({"val_sd": [1.0, 2.0], "val_r2": [0.1, 0.2]}))
    assert "SD of the differences" in text and "R²" in text


def test_no_figure_is_left_with_pyplot():
    script = "import sys; from cinefeed.reports.figures import labels_figure; labels_figure([1.0, 2.0], fed=[1.0]); "
    done = subprocess.run(
        [sys.executable, "-c", script + "print('matplotlib.pyplot' in sys.modules)"], capture_output=True
    )
    assert done.stdout.strip() == b"False", done.stderr


def texts_at(svg: str) -> list[tuple[float, float, str]]:
    """Return x, y and text of each text of a figure."""
    texts = ET.fromstring(svg).iter(f"{SVG}text")
    return [(float(each.get("x")), float(each.get("y")), "".join(each.itertext()).strip()) for each in texts]


@pytest.mark.parametrize("classes", [(), ("a", "b")])
def test_counts_have_whole_numbers_on_their_axis(classes):
    raw = np.array(["a", "b", "b"]) if classes else np.array([10.0, 20.0, 20.0])
    edges = None if classes else np.array([5.0, 15.0, 25.0])
    places = texts_at(labels_figure(raw, fed=raw, classes=classes, edges=edges))
    numbers = [(left, up, text) for left, up, text in places if text.replace(".", "").isdigit()]
    zero = next(place for place in numbers if float(place[2]) == 0)
    counts = [text for left, up, text in numbers if (up == zero[1] if classes else left == zero[0])]
    assert counts == ["0", "1", "2"]


def test_long_captions_of_a_sheet_do_not_reach_the_next_clip():
    captions = [f"{'a_very_long_folder_name/' * 6}{number}.mp4 · sick" for number in range(4)]
    places = texts_at(clips_sheet(blobs(4), captions=captions))
    edges = [*sorted({left for left, _, _ in places}), 880.0]
    assert len(places) == 4 and len(edges) == 3
    for (left, _, text), caption in zip(places, captions, strict=True):
        assert text.endswith(caption[-12:]) and "…" in text
        assert 6.7 * len(text) < edges[edges.index(left) + 1] - left  # a letter of 11 takes about 6.5


def test_legends_of_curves_are_above_the_axes():
    for figure in (roc_figure, pr_figure):
        svg = figure(np.arange(40) % 2, scores=RNG.uniform(size=40), classes=["no", "yes"], marks={"": 0.4})
        places = {text: up for _, up, text in texts_at(svg)}
        legend = [
            up for text, up in places.items() if text.startswith(("yes ", "at 0.4", "AUROC", "Average precision"))
        ]
        assert len(legend) == 3 and max(legend) < places["1.0"] - 5  # y runs down; 1.0 is the top of the axes
