"""What makes scores untrustworthy stands in the log of a training, in its folder, and at the head of its page."""

import json
import logging

import cv2
import numpy as np
import pyarrow as pa
import pytest
from made_run import settings_for

from cinefeed.data.manifest.manifest import Manifest
from cinefeed.reports import run_page
from cinefeed.training.doubts import doubt_lines
from cinefeed.training.fit import train
from cinefeed.training.folds import train_folds


def moving(number):
    """A video of its own for each number, uint8 (12, 24, 24): smooth texture that drifts."""
    rng = np.random.default_rng(number)
    still, drifting = (cv2.GaussianBlur(rng.normal(0, 1, (24, 24)), (0, 0), 1.5) for _ in range(2))
    clip = np.stack([still + np.roll(drifting, shift, axis=1) for shift in np.cumsum(rng.integers(1, 5, 12))])
    return np.clip(128 + 45 * clip / clip.std(), 0, 255).astype(np.uint8)


def written(folder, *, alike=(), **columns):
    """A manifest of 24 videos of 12 patients; `alike` has pairs of videos that show the same."""
    videos = [moving(number) for number in range(24)]
    for first, second in alike:
        videos[second] = np.clip(videos[first].astype(int) + 5, 0, 255).astype(np.uint8)
    for number, frames in enumerate(videos):
        np.save(folder / f"{number:02}.npy", frames)
    table = {
        "path": [f"{number:02}.npy" for number in range(24)],
        "patient": [f"p{number // 2}" for number in range(24)],
        "age": [20.0 + number for number in range(24)],
        "split": [("train", "train", "train", "train", "val", "test")[number // 4] for number in range(24)],
        **columns,
    }
    Manifest.scan(folder, labels=pa.table(table), out=folder / "m.parquet", progress=False)
    return folder / "m.parquet"


def findings_of(run):
    return json.loads((run / "findings.json").read_text())


def by_column(path):
    return settings_for(path, data={"split": {"column": "split"}})


def test_look_alikes_across_parts_stand_at_the_head(tmp_path, caplog):
    path = written(tmp_path, alike=[(0, 23), (5, 17)])
    with caplog.at_level(logging.WARNING):
        run = train(by_column(path)).folder
    titles = [each["title"] for each in findings_of(run)["findings"]]
    assert titles == ["4 videos in more than one part of the split, nearly the same frames"]
    (entry,) = findings_of(run)["findings"]
    assert (
        "nearly the same in five frames. One video may be in two parts: train and test, train and val."
        in entry["detail"]
    )
    assert [row["id"] for row in entry["rows"]] == ["00.npy", "23.npy", "05.npy", "17.npy"]
    assert findings_of(run)["not_checked"] == ""
    words = [each.message for each in caplog.records if "may not be trustworthy" in each.message]
    assert (
        len(words) == 1
        and titles[0] in words[0]
        and "--group-table groups.csv" in words[0]
        and "MANIFEST" not in words[0]
    )
    logged = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    assert [each["text"] for each in logged if each["event"] == "doubt"] == words
    html = run_page(run).read_text()
    assert f"A check of the data before the training found: {titles[0]}." in (run / "methods.md").read_text()
    head = html[: html.index("</header>")]
    assert "The scores on this page may not be trustworthy." in head and titles[0] in head
    assert "cannot be trusted" not in head
    assert doubt_lines(run) == [f"the scores may not be trustworthy: {titles[0]}"]
    copies = {**entry, "code": "copies_across_splits"}
    (run / "findings.json").write_text(json.dumps({"findings": [copies], "not_checked": ""}))
    assert "The scores on this page cannot be trusted." in run_page(run).read_text().partition("</header>")[0]
    warning = {"severity": "warning", "title": "age can be predicted from brightness", "detail": "R2", "advice": "look"}
    (run / "findings.json").write_text(json.dumps({"findings": [warning], "not_checked": ""}))
    head = run_page(run).read_text().partition("</header>")[0]
    assert "Read the scores with care." in head and warning["title"] in head and "cannot be trusted" not in head
    assert doubt_lines(run) == [f"read the scores with care: {warning['title']}"]


def test_sound_parts_have_no_doubt(tmp_path, caplog):
    run = train(by_column(written(tmp_path))).folder
    assert findings_of(run) == {"findings": [], "not_checked": ""}
    html = run_page(run).read_text()
    assert "cannot be trusted" not in html and "Not checked" not in html
    (run / "findings.json").unlink()
    assert "Not checked: leaks, copies and look-alikes between the parts" in run_page(run).read_text()


def test_groups_across_parts_and_labels_that_files_give_away(tmp_path):
    path = written(tmp_path, sick=["ny"[number % 2] for number in range(24)])
    for number in range(1, 24, 2):  # those of the sick are larger
        np.save(tmp_path / f"{number:02}.npy", np.pad(moving(number), ((0, 0), (0, 8), (0, 8)), mode="wrap"))
    labels = Manifest.read(path).table.select(["path", "sick", "split"])
    Manifest.scan(tmp_path, labels=labels, out=path, progress=False)
    rows = Manifest.read(path)
    patients = pa.array([f"p{number % 22}" for number in range(24)])
    Manifest(rows.table.append_column("patient", patients), root=rows.root, notes=rows.notes).write(path)
    settings = settings_for(path, data={"target": "sick", "split": {"column": "split", "group": False}})
    result = [each["code"] for each in findings_of(train(settings).folder)["findings"]]
    assert result == ["groups_across_splits", "label_predicted_by_file"]


def test_what_was_not_looked_at_is_said(tmp_path):
    path = written(tmp_path)
    rows = Manifest.read(path)
    unscanned = Manifest.from_table(rows.table.select(["id", "path", "age", "patient", "split"]), root=rows.root)
    unscanned.write(tmp_path / "u.parquet")
    run = train(by_column(tmp_path / "u.parquet")).folder
    assert "the videos were not scanned" in findings_of(run)["not_checked"]
    html = run_page(run).read_text()
    assert "Not checked: copies and near-duplicates in two parts" in html[: html.index("</header>")]


@pytest.mark.slow
def test_the_page_of_folds_names_the_fold(tmp_path):
    path = written(tmp_path, alike=[(0, 23)])
    settings = settings_for(path, data={"split": {"test": 0.1}})
    folder = train_folds(settings, folds=3, train=train).folder
    html = run_page(folder).read_text()
    head = html[: html.index("</header>")]
    assert "fold1: 2 videos in more than one part" in head or "fold2: 2 videos in more than one part" in head
