"""Real videos of many formats, packed without loss, are read as the source is."""

import shutil

import numpy as np
import pytest

import cinefeed as cf
from cinefeed.packing.advice import default_feed
from cinefeed.packing.pack import pack
from cinefeed.packing.sample import measure_codecs
from cinefeed.packing.settings import PackSettings


def check_rows(source, out, codec, channels):
    pack(source, out=out, settings=PackSettings(codec=codec, keep_ids=True), workers=0, progress=False)
    shards = cf.Manifest.read(out)
    for row in range(len(source)):
        with source.rows.open(row, channels=channels) as one, shards.rows.open(row, channels=channels) as other:
            count = len(one)
            assert len(other) == count
            numbers = np.unique(np.linspace(0, count - 1, 9).astype(int))
            expected, actual = one.read(numbers), other.read(numbers)
        name = f"{source.relative_path(row)}, {codec}"
        assert expected.dtype == actual.dtype and np.array_equal(
            expected, actual, equal_nan=expected.dtype == np.float32
        ), name
        assert shards.metadata(row).spacing_mm == source.metadata(row).spacing_mm, name
        before, after = source.metadata(row).times, shards.metadata(row).times
        assert before.count == after.count, name
        if not np.isnan(before.step_seconds) or before.listed is not None:
            assert np.allclose(before.seconds(), after.seconds(), rtol=0, atol=1e-9), name


@pytest.fixture(scope="module")
def formats(data):
    source = cf.Manifest.scan(data / "formats", progress=False)
    frames = source.column("num_frames").to_pylist()
    return source.take([row for row, count in enumerate(frames) if count and count < 150])


@pytest.mark.parametrize("codec", ["copy", "raw", "ffv1"])
def test_formats(formats, tmp_path, codec):
    assert len(formats) > 10
    check_rows(formats, tmp_path / "packed", codec, 3)


@pytest.mark.parametrize("codec", ["raw", "ffv1"])
def test_dicom(data, tmp_path, codec):
    pytest.importorskip("pydicom")
    source = cf.Manifest.scan(data / "dicom", progress=False)
    rows = [row for row in range(len(source)) if codec == "raw" or source.metadata(row).bits <= 16]
    check_rows(source.take(rows), tmp_path / "packed", codec, None)


@pytest.mark.parametrize("codec", ["copy", "raw", "ffv1"])
def test_batches_of_lips(data, tmp_path, codec):
    source = cf.Manifest.scan(data / "lips", labels=data / "lips/labels.csv", verify="packets", progress=False)
    source = source.take(range(0, len(source), 40))
    pack(source, out=tmp_path / "packed", settings=PackSettings(codec=codec), workers=0, progress=False)
    frame = cf.Frame(height=88, width=88, channels=3)
    options = {"target": "word", "clip": cf.Clip(frames=16), "frame": frame, "workers": 0, "batch_size": 4}
    transforms = [cf.Rotate(degrees=15), cf.Shift(pixels=6), cf.Brightness(factor=0.2)]
    one, other = (
        cf.Feed(each, transforms=transforms, **options) for each in (source, cf.Manifest.read(tmp_path / "packed"))
    )
    for expected, actual in zip(one, other, strict=True):
        assert np.array_equal(expected.clips, actual.clips) and np.array_equal(expected.targets, actual.targets)


def manifest_of(folder):
    return cf.Manifest.scan(folder, verify="packets", progress=False).readable()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["pocus", "lips"])
@pytest.mark.parametrize("codec", ["copy", "raw", "ffv1"])
def test_every_frame_of_a_data_set(data, tmp_path, name, codec):
    source = manifest_of(data / name)
    for row in range(len(source)):  # one after the other: the raw frames of all would take gigabytes
        out = tmp_path / "packed"
        pack(source.take([row]), out=out, settings=PackSettings(codec=codec), workers=0, progress=False)
        with source.open(row) as one, cf.Manifest.read(out).open(0) as other:
            count = len(one)
            assert len(other) == count
            for first in range(0, count, 32):
                numbers = range(first, min(first + 32, count))
                assert np.array_equal(one.read(numbers), other.read(numbers)), (source.relative_path(row), first)
        shutil.rmtree(out)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["pocus", "lips"])
@pytest.mark.parametrize("codec", ["jpeg", "h264"])
def test_a_data_set_is_as_near_as_its_sample_promised(data, tmp_path, name, codec):
    source = manifest_of(data / name)
    (_, promise) = measure_codecs(source, [codec], options={"short_side": 96}, make_feed=default_feed)
    exact, near = (
        packed_as(source, tmp_path / each, codec=each, short_side=96, channels=3 if each == "raw" else None)
        for each in ("raw", codec)
    )
    errors = []
    for row in range(len(source)):
        with exact.open(row, channels=3) as one, near.open(row, channels=3) as other:
            assert len(one) == len(other)
            numbers = range(0, len(one), 5)
            errors.append(np.mean((one.read(numbers).astype(float) - other.read(numbers)) ** 2))
    assert 10 * np.log10(255**2 / np.mean(errors)) > promise.psnr_db - 2


def packed_as(source, out, **settings):
    pack(source, out=out, settings=PackSettings(**settings), progress=False)
    return cf.Manifest.read(out)
