"""The demo's videos are what its table says, and the same for the same seed."""

import csv
from pathlib import Path

import av
import numpy as np
import pytest

from cinefeed.core.errors import SettingError
from cinefeed.core.rng import Stage, rng_for
from cinefeed.demo import MM_PER_PIXEL, SIZE, draw_ejection_fraction, draw_video, plan_demo, write_demo


def frames_of(path: Path) -> np.ndarray:
    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray(format="gray") for frame in container.decode(video=0)])


def test_ejection_fractions_are_skewed_as_in_clinics():
    fractions = np.array([draw_ejection_fraction(rng_for(1, stage=Stage.DEMO, position=n)) for n in range(4000)])
    assert fractions.min() >= 15 and fractions.max() <= 75
    assert 55 < np.median(fractions) < 63
    assert fractions.mean() < np.median(fractions) - 1.5
    assert 0.08 < (fractions < 40).mean() < 0.16


def test_the_plan_is_as_asked():
    plan = plan_demo(videos=400, seed=3)
    patients = [ventricle.patient for ventricle in plan]
    counts = [patients.count(patient) for patient in set(patients)]
    assert len(plan) == 400 and set(counts) == {1, 2, 3}
    assert patients == sorted(patients)
    usual = {patient: [v.ejection_fraction for v in plan if v.patient == patient] for patient in set(patients)}
    assert max(max(values) - min(values) for values in usual.values()) < 10
    assert all(each.frames / each.rate_hz * each.heart_rate / 60 > 1 for each in plan)  # at least one whole beat
    assert len({each.phase for each in plan}) == 400


def test_more_videos_begin_with_the_same_and_another_seed_differs():
    assert plan_demo(videos=9)[:5] == plan_demo(videos=5)
    assert plan_demo(videos=5, seed=8) != plan_demo(videos=5)


def test_nuisance_moves_the_ventricle_and_not_the_label():
    calm, hard = plan_demo(videos=60, nuisance=0), plan_demo(videos=60, nuisance=1)
    assert [each.ejection_fraction for each in calm] == [each.ejection_fraction for each in hard]
    assert {(each.angle, each.shift, each.gain, each.speckle) for each in calm} == {(0.0, (0.0, 0.0), 1.0, 0.0)}
    assert np.std([each.angle for each in hard]) > 0.3


@pytest.mark.parametrize("number", range(6))
def test_the_volumes_give_the_ejection_fraction(number):
    ventricle = plan_demo(videos=6)[number]
    volumes = ventricle.volumes()
    assert 100 * (1 - volumes.min() / volumes.max()) == pytest.approx(ventricle.ejection_fraction, abs=1.5)
    radius, length = ventricle.shape()
    assert 2 / 3 * np.pi * radius**2 * length * (MM_PER_PIXEL / 10) ** 3 == pytest.approx(volumes, rel=1e-4)


@pytest.mark.parametrize("number", range(0, 12, 3))
def test_the_cavity_in_the_pixels_has_the_area_of_the_shape(number):
    ventricle = plan_demo(videos=12, nuisance=0)[number]
    frames = draw_video(ventricle, rng=np.random.default_rng(0))
    radius, length = ventricle.shape()
    # without nuisance the base lies along rows: the cavity is the dark between the wall's sides, above the base
    base = SIZE * 0.48 - (ventricle.length / 2 - length)
    down = np.arange(SIZE) + 0.5
    for frame, low, wide, high in zip(frames, base, radius, length, strict=True):
        columns = slice(int(SIZE / 2 - ventricle.radius - 2), int(SIZE / 2 + ventricle.radius + 2))
        rows = (down < low - 1) & (down > low - high)
        dark = (frame[rows, columns] < 42).sum()
        assert dark == pytest.approx(np.pi / 2 * wide * (high - 1), rel=0.12)


def test_files_agree_with_their_table_and_their_drawing(tmp_path):
    areas = []
    table = write_demo(tmp_path / "demo", videos=5, seed=4, progress=areas.append)
    with table.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert table == tmp_path / "demo" / "labels.csv" and areas == [1, 2, 3, 4, 5]
    assert list(rows[0]) == (
        "path patient ejection_fraction heart_rate end_diastolic_volume_ml end_systolic_volume_ml".split()
    )
    assert sorted(path.relative_to(table.parent).as_posix() for path in table.parent.rglob("*.mp4")) == [
        row["path"] for row in rows
    ]
    for row, ventricle in zip(rows, plan_demo(videos=5, seed=4), strict=True):
        assert row["patient"] == ventricle.patient == Path(row["path"]).parent.name
        largest, smallest = float(row["end_diastolic_volume_ml"]), float(row["end_systolic_volume_ml"])
        assert 100 * (1 - smallest / largest) == pytest.approx(float(row["ejection_fraction"]), abs=0.2)
        path = table.parent / row["path"]
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            assert (stream.codec_context.name, stream.width, stream.height) == ("h264", SIZE, SIZE)
            assert float(stream.average_rate) == ventricle.rate_hz
        assert len(frames_of(path)) == ventricle.frames


def test_two_writes_are_the_same_to_the_byte(tmp_path):
    first, again = (write_demo(tmp_path / name, videos=4, seed=11).parent for name in ("first", "again"))
    names = sorted(path.relative_to(first) for path in first.rglob("*.*"))
    assert len(names) == 5
    for name in names:
        assert (first / name).read_bytes() == (again / name).read_bytes(), name
    other = write_demo(tmp_path / "other", videos=4, seed=12).parent
    assert (first / "labels.csv").read_bytes() != (other / "labels.csv").read_bytes()
    assert not np.array_equal(frames_of(first / "p0000/v0000.mp4")[0], frames_of(other / "p0000/v0000.mp4")[0])


@pytest.mark.parametrize("wrong", [{"videos": 0}, {"nuisance": -0.1}, {"nuisance": 1.5}])
def test_settings_out_of_range_are_refused_before_anything_is_written(tmp_path, wrong):
    with pytest.raises(SettingError, match=next(iter(wrong))):
        write_demo(tmp_path / "demo", **wrong)
    assert not (tmp_path / "demo").exists()


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(SettingError, match="cannot be written"):
        write_demo(tmp_path / "file" / "demo", videos=1)
