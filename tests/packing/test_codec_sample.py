"""Codecs measured on a sample, and what packing would give a feed."""

import numpy as np
import pyarrow as pa
import pytest

import cinefeed as cf
from cinefeed.core.errors import SettingError
from cinefeed.feed.settings import FeedSettings
from cinefeed.feed.stats import Stats
from cinefeed.packing.advice import default_feed, packing_advice
from cinefeed.packing.pack import pack
from cinefeed.packing.sample import CodecMeasurement, choose_codec, measure_codecs
from cinefeed.packing.settings import PackSettings
from cinefeed.testing import write_video


@pytest.fixture(scope="module")
def videos(tmp_path_factory) -> cf.Manifest:
    """Four videos of smooth noise, one key frame each."""
    folder, random = tmp_path_factory.mktemp("videos"), np.random.default_rng(0)
    for number in range(4):
        steps = random.integers(-9, 10, (40, 12, 16, 3)).cumsum(axis=0) + 128
        frames = np.clip(steps, 0, 255).astype(np.uint8).repeat(12, axis=1).repeat(12, axis=2)
        write_video(folder / f"{number}.mp4", frames, gop=250)
    return cf.Manifest.scan(folder, progress=False)


def test_what_a_sample_predicts_is_what_packing_gives(videos, tmp_path):
    measurements = measure_codecs(videos, options={"short_side": 96}, make_feed=default_feed)
    by_codec = {each.codec: each for each in measurements}
    assert [*by_codec] == [None, "copy", "raw", "ffv1", "jpeg", "h264"]
    assert "takes no size" in by_codec["copy"].error
    for codec in ("raw", "ffv1", "jpeg", "h264"):
        each = by_codec[codec]
        pack(videos, out=tmp_path / codec, settings=PackSettings(codec=codec, short_side=96), workers=0, progress=False)
        shards = cf.Manifest.read(tmp_path / codec)
        assert each.bytes == pytest.approx(sum(shards.column("member_bytes").to_pylist()), rel=0.2)
        assert each.clips_per_second > 0 and not each.error
        with videos.open(0) as source, shards.open(0) as packed:
            assert len(packed) == len(source)
    assert by_codec["raw"].psnr_db == np.inf and by_codec["ffv1"].ssim == 1
    assert 30 < by_codec["jpeg"].psnr_db < 70 and 0.9 < by_codec["h264"].ssim < 1


def test_the_promised_psnr_is_that_of_the_whole(videos, tmp_path):
    (_, promised) = measure_codecs(videos, ["jpeg"], options={}, make_feed=default_feed)
    pack(videos, out=tmp_path / "packed", settings=PackSettings(codec="jpeg"), workers=0, progress=False)
    shards, errors = cf.Manifest.read(tmp_path / "packed"), []
    for row in range(4):
        with videos.open(row) as one, shards.open(row) as other:
            errors.append(np.mean((one.read(range(40)).astype(float) - other.read(range(40))) ** 2))
    assert 10 * np.log10(255**2 / np.mean(errors)) == pytest.approx(promised.psnr_db, abs=1)


def test_the_fastest_codec_that_fits_is_chosen():
    measurements = [
        CodecMeasurement(codec=None, bytes=1, clips_per_second=10),
        CodecMeasurement(codec="raw", bytes=100, clips_per_second=1000),
        CodecMeasurement(codec="jpeg", bytes=10, clips_per_second=400),
        CodecMeasurement(codec="h264", bytes=3, clips_per_second=390),
        CodecMeasurement(codec="copy", bytes=0, error="no"),
    ]
    assert [choose_codec(measurements, max_bytes=limit).codec for limit in (1000, 50, 5)] == ["raw", "h264", "h264"]
    with pytest.raises(SettingError, match=r"smallest shards take 3e-06 MB"):
        choose_codec(measurements, max_bytes=2)


def test_advice_is_measured_and_given_only_if_decoding_dominates(videos, tmp_path):
    frame = cf.Frame(height=64, width=64)
    settings = FeedSettings(target="age", clip=cf.Clip(frames=8), frame=frame)
    decoding = Stats(decode_seconds=8, transform_seconds=2)
    advice = packing_advice(videos, settings, decoding)
    assert advice is None or (advice.short_side == 74 and advice.gain >= 1.5 and "80 %" in str(advice))
    assert packing_advice(videos, settings, Stats(decode_seconds=2, transform_seconds=8)) is None
    pack(videos, out=tmp_path / "packed", settings=PackSettings(codec="jpeg"), workers=0, progress=False)
    assert packing_advice(cf.Manifest.read(tmp_path / "packed"), settings, decoding) is None


def test_the_verdict_names_packing_for_files_alone():
    stats = {"read_seconds": 1, "decode_seconds": 8, "wait_seconds": 4, "elapsed_seconds": 5}
    assert "'cinefeed pack'" in Stats(**stats, is_packed=False).verdict
    assert "pack" not in Stats(**stats, is_packed=True).verdict + Stats(**stats).verdict


def test_in_memory_videos_are_packed(tmp_path):
    clips = np.random.default_rng(0).integers(0, 255, (3, 6, 20, 20), np.uint8)
    source = cf.Manifest.from_arrays(clips, pa.table({"age": [1, 2, 3]}))
    pack(source, out=tmp_path / "packed", settings=PackSettings(codec="raw"), workers=2, progress=False)
    with cf.Manifest.read(tmp_path / "packed").open(2) as packed:
        assert np.array_equal(packed.read(range(6))[..., 0], clips[2])
