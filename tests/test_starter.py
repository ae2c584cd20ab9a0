import re
import tomllib

import numpy as np
import pyarrow as pa
import pytest

from cinefeed.config import parse
from cinefeed.config.starter import starter, with_pace
from cinefeed.core.errors import ArgumentError, ColumnError, LabelError, SettingError, TableError
from cinefeed.data.manifest.group_candidates import group_candidates
from cinefeed.data.manifest.manifest import Manifest


def scanned(*, rows=60, frames=40, height=96, width=96, channels=1, bits=8, rate_hz=25.0, **labels):
    """A manifest as a scan writes it, of files that nobody opens."""

    def column(value, kind):
        return pa.array(value if isinstance(value, list) else [value] * rows, kind)

    metadata = {
        "num_frames": column(frames, pa.int32()),
        "height": column(height, pa.int32()),
        "width": column(width, pa.int32()),
        "channels": column(channels, pa.int32()),
        "bits": column(bits, pa.int32()),
        "rate_hz": column(rate_hz, pa.float64()),
    }
    if rate_hz is not None:
        steps = [1 / rate for rate in rate_hz] if isinstance(rate_hz, list) else 1 / rate_hz
        metadata["step_seconds"] = column(steps, pa.float64())
    paths = [f"v{row:03d}.npy" for row in range(rows)]
    return Manifest.from_table(pa.table({"path": paths, **metadata, **labels}))


PATIENTS = [f"p{row // 2}" for row in range(60)]
AGES = [20.0 + row for row in range(60)]


def table_of(manifest, *, target="age", group="patient"):
    text = starter(manifest, path="m.parquet", target=target, group=group).text
    for line in text.splitlines():
        if line and not line.startswith("["):
            assert "  # " in line or line.startswith("# "), f"no reason: {line}"
    table = tomllib.loads(text)
    parse(table)
    return table, text


def test_every_line_has_its_reason_and_the_whole_parses():
    table, text = table_of(scanned(patient=PATIENTS, age=AGES, frames=[40 + row for row in range(60)]))
    assert table["data"] == {
        "manifest": "m.parquet",
        "target": "age",
        "task": "regression",
        "split": {"group": "patient", "val": 0.2, "test": 0.2, "stratify": "age", "seed": 0},
    }
    assert "30 groups; none is in two parts" in text
    assert list(table)[:6] == ["data", "clip", "frame", "transforms", "sampler", "feed"]
    assert table["clip"] == {"frames": 16, "stride": 2, "position": "random"}
    assert "1.2 s at 25 Hz" in text
    assert table["frame"] == {"height": 64, "width": 64, "channels": 1, "fit": "crop", "dtype": "uint8"}
    assert table["model"] == {"name": "cnn_rnn", "norm": "layer", "dropout": 0.2}
    assert table["train"]["learning_rate"] == 3e-3 and "label_smoothing" not in table["train"]
    assert "mixing" not in table["feed"]
    assert table["train"]["monitor"] == "loss", "6 patients of validation choose no epoch"
    steps = table["train"]["epochs"] * -(-36 // table["feed"]["batch_size"])
    assert table["train"]["epochs"] == 100 or 1500 <= steps < 1700


def test_without_a_group_the_columns_that_it_could_be_are_named():
    manifest = scanned(
        site=["x", "y"] * 30,
        age=AGES,
        ward=[f"w{row // 4}" for row in range(60)],
        patient_key=PATIENTS,
        note=["n"] * 60,
        study=[f"s{row // 2}" if row < 40 else None for row in range(60)],
    )
    assert group_candidates(manifest, target="age") == [
        "patient_key (30 values in 60 rows)",
        "study (20 values in 40 of 60 rows)",
        "ward (15 values in 60 rows)",
    ]
    with pytest.raises(ArgumentError, match=r"split needs group; .*group='patient_key'"):
        manifest.split(val=0.1, test=0.1)
    with pytest.raises(SettingError, match=r"candidates: patient_key \(30 values in 60 rows\), study"):
        starter(manifest, path="m.parquet", target="age", group=None)
    table, text = table_of(manifest, group=False)
    assert table["data"]["split"]["group"] is False
    assert "set by --no-group: all rows are independent" in text
    with pytest.raises(ColumnError, match="did you mean 'patient_key'"):
        starter(manifest, path="m.parquet", target="age", group="patient_ky")


def test_cycles_are_taken_whole_and_short_videos_are_padded():
    cine = scanned(patient=PATIENTS, age=AGES, frames=[20 + row % 11 for row in range(60)])
    assert table_of(cine)[0]["clip"] == {"frames": 20, "position": "spread"}
    uneven = scanned(patient=PATIENTS, age=AGES, frames=[10] * 3 + [50] * 57)
    table, text = table_of(uneven)
    assert table["clip"] == {"frames": 16, "stride": 3, "position": "random", "short": "pad"}
    assert "3 of 60 videos are shorter than a clip" in text
    brief = scanned(patient=PATIENTS, age=AGES, frames=[2] * 30 + [7] * 30, rate_hz=None)
    table, text = table_of(brief)
    assert table["clip"]["frames"] == 4
    assert " Hz" not in text


def test_frames_follow_the_files():
    wide = scanned(patient=PATIENTS, age=AGES, height=480, width=640)
    table, text = table_of(wide)
    assert table["frame"] == {"height": 64, "width": 80, "channels": 1, "fit": "crop", "dtype": "uint8"}
    assert "480 x 640" in text and "36 training videos are few" in text
    ages = [float(row % 50) for row in range(800)]
    many = scanned(rows=800, patient=[str(row) for row in range(800)], age=ages, height=480, width=640)
    table, text = table_of(many)
    assert (table["frame"]["height"], table["frame"]["width"]) == (112, 144) and "dropout" not in table["model"]
    mixed = scanned(patient=PATIENTS, age=AGES, height=[200] * 30 + [400] * 30, width=300)
    table, text = table_of(mixed)
    assert table["frame"]["fit"] == "pad"
    assert "have 2 sizes" in text
    tiny = scanned(patient=PATIENTS, age=AGES, height=10, width=12)
    table, _ = table_of(tiny)
    assert table["frame"]["height"] == 16
    assert len(table["model"]["filters"]) == 3
    pair = scanned(patient=PATIENTS, age=AGES, frames=2, height=40, width=40)
    assert table_of(pair)[0]["model"] == {"name": "cnn_rnn", "filters": [16, 32, 64], "norm": "layer", "dropout": 0.2}


def stored(kind, *, bits, window=None, low=None, high=None):
    """Columns of a scan for numbers of some type: `window` of their own, or percentiles by row."""
    columns = {"container": ["npy"] * 60, "pixel_format": [kind] * 60}
    if window is not None:
        columns |= {"window_black": [window[0]] * 60, "window_white": [window[1]] * 60}
    if low is not None:
        columns |= {"value_low": low, "value_high": high, "value_min": low, "value_max": high}
    return scanned(patient=PATIENTS, age=AGES, bits=bits, **columns)


def test_the_window_is_that_of_the_training_rows():
    settings = parse(table_of(stored("uint8", bits=8))[0]).data.split
    rows = {name: number for number, name in enumerate(stored("uint8", bits=8).column("id").to_pylist())}
    parts = stored("uint8", bits=8).split(
        val=settings.val, test=settings.test, group="patient", stratify="age", seed=settings.seed
    )
    training = {rows[name] for name in parts.train.column("id").to_pylist()}
    high = [1000.0 + row if row in training else 9000.0 for row in range(60)]
    table, text = table_of(stored("uint16", bits=16, low=[12.0 + row % 2 for row in range(60)], high=high))
    assert table["frame"]["dtype"] == "uint8"
    assert table["frame"]["window"] == [12.0, 1000.0 + max(training)]
    assert "60 of 60 videos hold uint16, 12 to " in text
    table, _ = table_of(stored("float32", bits=32, low=[-0.25] * 60, high=[0.9951] * 60))
    assert table["frame"]["window"] == [-0.25, 0.996]
    assert table["transforms"][0]["name"] == "Rotate"  # it is on the scale of 0 to 255


def test_a_window_of_the_files_is_enough_and_an_unknown_range_is_said():
    table, _ = table_of(stored("MONOCHROME2 12", bits=12, window=(40.0, 400.0)))
    assert (table["frame"]["dtype"], "window" in table["frame"]) == ("uint16", False)
    table, _ = table_of(stored("float32", bits=32, window=(0.0, 1.0)))
    # Normalize is last: one interpolation with the fit of the frame
    assert [each["name"] for each in table["transforms"]] == ["Rotate", "Shift", "Normalize"]
    table, text = table_of(stored("uint16", bits=16))
    assert "window" not in table["frame"]
    assert "window = [LOW, HIGH]: the range of values is unknown; scan again" in text


def test_colour_is_what_the_pixels_say(tmp_path):
    for name, step in (("grey", 0), ("red", 60)):
        folder = tmp_path / name
        folder.mkdir()
        for number in range(8):
            frames = np.full((20, 16, 16, 3), 100, np.uint8)
            frames[..., 0] += np.uint8(step)
            np.save(folder / f"{number}.npy", frames)
        manifest = Manifest.scan(folder, progress=False)
        manifest = Manifest(
            manifest.table.append_column("age", pa.array(np.arange(8.0))), root=manifest.root, notes=manifest.notes
        )
        table, text = table_of(manifest, group=False)
        assert table["frame"]["channels"] == (1 if name == "grey" else 3)
        assert ("0 of 8 that were read are in colour" in text) == (name == "grey")


def test_labels_choose_task_and_sampler():
    kinds = ["covid"] * 42 + ["regular"] * 18
    table, text = table_of(scanned(patient=PATIENTS, kind=kinds), target="kind")
    assert (table["data"]["task"], table["data"]["classes"]) == ("binary", ["covid", "regular"])
    assert table["sampler"]["name"] == "BalancedClasses"
    assert "'regular', is the positive one" in text
    assert (
        table["model"]["name"] == "cnn3d"
        and table["train"]["label_smoothing"] == 0.1
        and table["feed"]["mixing"] == {"name": "MixUp", "alpha": 0.2}
    )
    table, _ = table_of(scanned(patient=PATIENTS, kind=["a", "b", "c"] * 20), target="kind")
    assert (table["data"]["task"], table["sampler"]["name"]) == ("multiclass", "Natural")
    table, _ = table_of(scanned(patient=PATIENTS, sick=[row % 2 for row in range(60)]), target="sick")
    assert (table["data"]["task"], table["data"]["classes"]) == ("binary", ["0", "1"])
    table, _ = table_of(scanned(patient=PATIENTS, sick=[row % 3 == 0 for row in range(60)]), target="sick")
    assert table["data"]["classes"] == ["false", "true"]
    missing = [None] * 5 + AGES[5:]
    table, text = table_of(scanned(patient=PATIENTS, age=missing))
    assert table["data"]["missing"] == "drop"
    assert "5 of 60 rows have no age" in text


def test_a_class_of_one_group_is_not_stratified_and_says_so():
    kinds = ["common"] * 58 + ["rare"] * 2
    table, text = table_of(scanned(patient=PATIENTS, kind=kinds), target="kind")
    assert "stratify" not in table["data"]["split"]
    assert "# not stratified: " in text


def test_a_class_too_rare_for_three_parts_is_left_out_and_named():
    kinds = ["a"] * 30 + ["b"] * 28 + ["odd, one"] * 2
    table, text = table_of(scanned(**{"patient": PATIENTS, "the kind": kinds}), target="the kind")
    assert table["data"]["where"] == {"the kind": ["a", "b"]}
    assert table["data"]["split"]["stratify"] == "the kind"
    assert (table["data"]["task"], table["data"]["classes"]) == ("binary", ["a", "b"])
    assert "left out: odd, one (2 videos), in fewer than 3 groups" in text and "58 rows with frames" in text
    numbers = scanned(patient=PATIENTS, grade=pa.array([1.0] * 30 + [2.0] * 28 + [7.0] * 2)).with_task(
        "grade", "multiclass"
    )
    table, _ = table_of(numbers, target="grade")
    assert table["data"]["where"] == {"grade": ["1", "2"]}
    parts = ["train"] * 40 + ["val"] * 10 + ["test"] * 10
    table, _ = table_of(scanned(patient=PATIENTS, kind=kinds, split=parts), target="kind")
    assert table["data"]["where"] == {"kind": ["a", "b"]}


def test_classes_that_differ_by_much_are_not_called_even():
    kinds = ["a"] * 40 + ["b"] * 20
    parts = ["train"] * 40 + ["val"] * 10 + ["test"] * 10
    _, text = table_of(scanned(patient=PATIENTS, kind=kinds, split=parts), target="kind")
    assert "nearly balanced" not in text


def test_videos_of_one_length_are_said_to_be_so():
    assert "all videos have 20 frames" in table_of(scanned(patient=PATIENTS, age=AGES, frames=20))[1]


def test_classes_of_whole_videos_keep_the_order_and_many_of_them_choose_no_epoch():
    def settings(classes, **columns):
        kinds = [f"c{row % classes:02d}" for row in range(300)]
        return table_of(scanned(rows=300, kind=kinds, **columns), target="kind", group=False)

    table, text = settings(20, frames=29)
    assert table["model"] == {"name": "cnn3d", "pooling": "ordered", "dropout": 0.2}
    assert table["frame"]["height"] == 32 and "210 training videos of 20 classes are few" in text
    assert table["clip"]["frames"] == 16 and "210 training videos are few: with fewer frames" in text
    assert table["train"]["monitor"] == "loss" and "rows of validation for 20 classes are too few" in text
    table, _ = settings(2, frames=[29 + row for row in range(300)])
    assert table["clip"]["position"] == "random" and "pooling" not in table["model"]
    assert table["frame"]["height"] == 64
    assert "monitor" not in table["train"], "45 rows of validation are enough for two classes"


def test_parts_that_are_there_are_kept():
    names = ["train"] * 40 + ["val"] * 10 + ["test"] * 10
    table, _ = table_of(scanned(patient=PATIENTS, age=AGES, split=names), group=None)
    assert table["data"]["split"] == {"column": "split"}
    table, _ = table_of(scanned(patient=PATIENTS, age=AGES, split=names))
    assert table["data"]["split"] == {"column": "split", "group": "patient"}


def test_features_are_read_by_a_network_for_them():
    labels = {"patient": PATIENTS, "age": AGES, "encoded_from": ["cnn_rnn of a, weights 0, frames 48x48x1"] * 60}
    table, text = table_of(scanned(height=1, width=64, bits=32, **labels))
    assert table["frame"] == {"height": 1, "width": 64, "channels": 1, "fit": "none", "dtype": "float32"}
    assert table["clip"]["position"] == "spread" and table["model"]["name"] == "ordered"
    assert "transforms" not in table
    assert "features of cnn_rnn of a" in text
    table, _ = table_of(scanned(height=1, width=64, bits=32, frames=[20 + row for row in range(60)], **labels))
    assert table["clip"]["position"] == "random" and table["model"]["name"] == "attentive"


def test_rows_without_a_part_of_the_runs_are_left_out():
    parts = ["train"] * 36 + ["val"] * 8 + ["test"] * 8 + [None] * 8
    for name in ("cnn_rnn of a run, weights 0", "MobileNetV2, weights 0"):
        labels = {"patient": PATIENTS, "age": AGES, "split": pa.array(parts, pa.string())}
        table, _ = table_of(scanned(height=1, width=8, bits=32, encoded_from=[name] * 60, **labels))
        is_run = name.startswith("cnn_rnn")
        assert table["data"].get("where") == ({"split": ["test", "train", "val"]} if is_run else None)
        assert ("column" in table["data"]["split"]) == is_run
        # Videos that the run knows nothing of, by their ids: no part to keep.
        labels["split"] = pa.nulls(60, pa.string())
        table, _ = table_of(scanned(height=1, width=8, bits=32, encoded_from=[name] * 60, **labels))
        assert "where" not in table["data"] and "column" not in table["data"]["split"]


def test_a_clip_is_as_long_as_its_window():
    seconds = {"start_seconds": [0.0] * 60, "end_seconds": [0.4] * 60, "step_seconds": [0.04] * 60}
    table, text = table_of(scanned(patient=PATIENTS, age=AGES, frames=500, **seconds))
    assert table["clip"] == {"frames": 10, "position": "spread"}
    assert "all windows have 10 frames" in text


def test_odd_characters_stay_out_of_comments():
    manifest = scanned(patient=PATIENTS, kind=["a\x07", "b\x7f\u2028"] * 30)
    text = starter(manifest, path="m\x01.parquet", target="kind", group="patient").text
    assert tomllib.loads(text)["data"]["classes"] == ["a\x07", "b\x7f\u2028"]
    assert "\x01" not in text and "\u2028" not in text.partition("two values: ")[2].partition("\n")[0]


def test_what_cannot_serve_is_refused():
    with pytest.raises(LabelError, match="'age' is 3 in all rows"):
        starter(scanned(age=[3.0] * 60), path="m", target="age", group=False)
    with pytest.raises(LabelError, match="'age' has infinite values"):
        starter(scanned(age=[float("inf"), *AGES[1:]]), path="m", target="age", group=False)
    with pytest.raises(TableError, match="run 'cinefeed scan'"):
        starter(Manifest.from_table(pa.table({"path": ["a.mp4"], "age": [1.0]})), path="m", target="age", group=False)
    with pytest.raises(TableError, match="none of 60 rows has a frame"):
        starter(scanned(frames=0, age=AGES), path="m", target="age", group=False)
    with pytest.raises(LabelError, match="there is nothing to learn"):
        starter(scanned(kind=["a"] * 60), path="m", target="kind", group=False)
    with pytest.raises(LabelError, match="no row has a 'age' label"):
        starter(scanned(age=pa.nulls(60, pa.float64())), path="m", target="age", group=False)
    with pytest.raises(ColumnError, match="did you mean 'age'"):
        starter(scanned(age=AGES), path="m", target="aeg", group=False)


def test_few_groups_are_cross_validated():
    subjects = [f"p{row // 15}" for row in range(60)]
    manifest = scanned(patient=subjects, kind=["a", "b", "b"] * 20)
    settings = starter(manifest, path="m.parquet", target="kind", group="patient")
    table = tomllib.loads(settings.text)
    assert (settings.folds, table["train"]["folds"], "test" in table["data"]["split"]) == (4, 4, False)
    assert "rows of the first fold: train 30, val 15, test 15" in settings.text
    assert "4 folds are proposed, because a single test part of 4 groups (patient) would be small" in settings.notes
    assert parse(table).train.folds == 4
    many = starter(scanned(patient=PATIENTS, age=AGES), path="m.parquet", target="age", group="patient")
    assert many.folds == 0 and "folds" not in many.text
    assert re.search(
        r"val = 0.2  # of the rows, in whole groups; rows: train \d+, .*; groups: train \d+, val", many.text
    )


def test_rates_that_differ_are_cut_by_time():
    mixed = scanned(patient=PATIENTS, age=AGES, frames=[60] * 30 + [120] * 30, rate_hz=[15.0] * 30 + [30.0] * 30)
    table, text = table_of(mixed)
    assert table["clip"] == {"frames": 16, "rate_hz": 4.0, "position": "random"}
    assert "15 to 30 Hz" in text and "a clip spans 3.8 s" in text
    clip = parse(table).clip
    assert (clip.frames - 1) / clip.rate_hz < 59 / 15  # it fits the shortest video, 60 frames at 15 Hz
    rates, frames = [30.0] * 20 + [24.0] * 20 + [20.0] * 20, [40 + row for row in range(60)]
    uneven = scanned(patient=PATIENTS, age=AGES, frames=frames, rate_hz=rates)
    table, text = table_of(uneven)
    clip = parse(table).clip
    lengths = [(count - 1) / rate for count, rate in zip(frames, rates, strict=True)]
    short = sum(length < (clip.frames - 1) / clip.rate_hz for length in lengths)
    assert short == 6 and f"{short} of 60 videos are shorter than a clip" in text and clip.short == "pad"


@pytest.mark.parametrize("counts", [(76, 40, 266, 11, 2), (1, 2, 3, 4, 90)])
def test_skewed_numbers_are_balanced(counts):
    ages = [float(fifth) + row / (2 * count) for fifth, count in enumerate(counts) for row in range(count)]
    manifest = scanned(rows=len(ages), patient=[f"p{row}" for row in range(len(ages))], age=ages)
    table, text = table_of(manifest)
    assert table["sampler"] == {"name": "UniformLabels", "bins": 5, "strength": 0.5, "max_repeats": 10}
    assert "fifths of the label range have" in text
    assert table_of(scanned(patient=PATIENTS, age=AGES))[0]["sampler"]["name"] == "Natural"


def test_very_rare_classes_are_not_drawn_too_often():
    kinds = ["a"] * 397 + ["b"] * 3
    manifest = scanned(rows=400, patient=[f"p{row}" for row in range(400)], kind=kinds)
    assert table_of(manifest, target="kind")[0]["sampler"] == {"name": "BalancedClasses", "max_repeats": 10}


def test_rows_are_selected_and_a_class_of_one_video_is_reported():
    kinds = ["a"] * 28 + ["b"] * 31 + ["odd"]
    manifest = scanned(patient=PATIENTS, kind=kinds, view=["4ch", "4ch", "2ch"] * 20)
    settings = starter(
        manifest, path="m.parquet", target="kind", group="patient", where={"view": ["4ch"], "kind": ["a", "b"]}
    )
    assert tomllib.loads(settings.text)["data"]["where"] == {"view": ["4ch"], "kind": ["a", "b"]}
    assert "40 rows with frames" in settings.text and settings.notes == ()
    settings = starter(manifest, path="m.parquet", target="kind", group="patient")
    assert settings.notes == (
        "kind: left out odd (1 video), in fewer than 3 groups; each of the 3 parts needs one group",
    )


def test_a_class_without_a_training_row_is_left_out():
    kinds = ["a"] * 20 + ["b"] * 25 + ["a"] * 6 + ["b"] * 7 + ["odd"] * 2
    parts = ["train"] * 40 + ["val"] * 10 + ["test"] * 10
    settings = starter(scanned(kind=kinds, split=parts), path="m.parquet", target="kind", group=None)
    assert tomllib.loads(settings.text)["data"]["where"] == {"kind": ["a", "b"]}
    assert "without a row in the training part" in settings.notes[0]


def test_channels_do_not_depend_on_the_target(tmp_path):
    for number in range(20):
        frames = np.full((20, 16, 16, 3), 100, np.uint8)
        frames[..., 0] += np.uint8(60 * (number % 4 == 0))  # a quarter in colour
        np.save(tmp_path / f"{number:02d}.npy", frames)
    manifest = Manifest.scan(tmp_path, progress=False)
    table = manifest.table.append_column("age", pa.array(np.arange(20.0)))
    grey_only = pa.array([None if number % 4 == 0 else float(number) for number in range(20)])
    manifest = Manifest(table.append_column("size", grey_only), root=manifest.root, notes=manifest.notes)
    for target in ("age", "size"):
        table, text = table_of(manifest, target=target, group=False)
        assert table["frame"]["channels"] == 3 and "5 of 20 that were read are in colour" in text


def test_the_duration_is_a_comment():
    text = with_pace("# head\n\n[data]\n", "3 s a step")
    assert text.startswith("# head\n# Duration: 3 s a step.\n# ") and text.endswith("\n\n[data]\n")
