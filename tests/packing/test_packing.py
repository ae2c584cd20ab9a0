"""Packed data sets: what is fed from shards is what is fed from the source."""

import hashlib
import json
import tarfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

import cinefeed as cf
from cinefeed.core.errors import ChangedFileError, PackError, SettingError, SourceError, TableError
from cinefeed.packing.pack import pack
from cinefeed.packing.settings import PackSettings
from cinefeed.packing.verify import verify_packed
from cinefeed.testing import numbered_frames, read_number, write_video
from cinefeed.video.ffmpeg.source import EncodedSource

FRAME = cf.Frame(height=40, width=44, channels=3)


@pytest.fixture
def videos(tmp_path: Path) -> cf.Manifest:
    """Six videos with labels: H.264 with B-frames, MPEG-4 in AVI, and arrays; ids with dots and slashes."""
    folder = tmp_path / "source"
    folder.mkdir()
    noise = np.random.default_rng(0)
    for number in range(2):
        frames = numbered_frames(30, height=50, width=62, first=100 * number)
        write_video(folder / f"{number}.a.mp4", frames, gop=15, b_frames=2, rate_hz=30000 / 1001)
    write_video(folder / "2.avi", numbered_frames(20, first=200), codec="mpeg4")
    np.save(folder / "3.npy", noise.integers(0, 255, (12, 41, 33), np.uint8))
    np.save(folder / "4.npy", noise.integers(0, 255, (12, 42, 30, 3), np.uint8))
    np.save(folder / "5.npy", noise.integers(0, 255, (12, 44, 40), np.uint8))
    names = sorted(path.name for path in folder.iterdir())
    labels = {"path": names, "age": [31.0, 45.5, 60.0, 52.0, None, 70.0], "group": list("abcabc")}
    return cf.Manifest.scan(folder, labels=pa.table(labels), out=tmp_path / "m.parquet", progress=False)


def packed(manifest: cf.Manifest, out: Path, **settings) -> cf.Manifest:
    pack(manifest, out=out, settings=PackSettings(**settings), workers=0, progress=False)
    return cf.Manifest.read(out)


def batches(manifest: cf.Manifest, **options) -> list[bytes]:
    settings = {"frame": FRAME, "clip": cf.Clip(frames=5, stride=2), "workers": 0, "batch_size": 2} | options
    feed = cf.Feed(manifest, target="group", transforms=[cf.Rotate(degrees=20), cf.Normalize()], **settings)
    return [batch.clips.tobytes() + batch.targets.tobytes() + batch.valid.tobytes() for batch in feed]


def contents(folder: Path) -> dict[str, str]:
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.mark.parametrize("codec", ["copy", "raw", "ffv1"])
@pytest.mark.parametrize("channels", [1, 3])
def test_batches_are_those_of_the_source(videos, tmp_path, codec, channels):
    shards = packed(videos, tmp_path / "packed", codec=codec, rows_per_shard=4)
    frame = cf.Frame(height=40, width=44, channels=channels)
    assert batches(shards, frame=frame) == batches(videos, frame=frame)
    if codec != "raw":  # arrays have no rate
        return
    by_time = {"clip": cf.Clip(frames=4, rate_hz=10)}
    mp4 = [0, 1]
    assert batches(shards.take(mp4), **by_time) == batches(videos.take(mp4), **by_time)


@pytest.mark.parametrize("codec", ["copy", "raw", "ffv1", "jpeg", "h264"])
def test_labels_times_and_frames_stay(videos, tmp_path, codec):
    shards = packed(videos, tmp_path / "packed", codec=codec)
    assert shards.column("id").equals(videos.column("id")) and shards.column("age").equals(videos.column("age"))
    assert shards.label_type("age") == videos.label_type("age")
    assert set(shards.column("path").to_pylist()) == {"shards/000000.tar"}
    for row in range(3):
        with shards.open(row) as source:
            numbers = [read_number(frame) for frame in source.read([0, 7, 19, 3])]
        assert [number - 100 * row for number in numbers] == [0, 7, 19, 3]
        assert shards.metadata(row).rate_hz == pytest.approx(videos.metadata(row).rate_hz)
    for row in range(len(videos)):
        before, after = videos.metadata(row).times, shards.metadata(row).times
        assert after.count == before.count
        if row < 3:
            assert np.allclose(after.seconds(), before.seconds(), rtol=0, atol=1e-9)
        else:
            assert np.isnan(after.step_seconds) and after.listed is None


@pytest.mark.parametrize(("codec", "least"), [("jpeg", 30.0), ("h264", 30.0)])
def test_lossy_codecs_stay_near(videos, tmp_path, codec, least):
    shards = packed(videos.take([0, 1, 2]), tmp_path / "packed", codec=codec, quality=2 if codec == "jpeg" else 10)
    for row in range(3):
        with videos.open(row) as one, shards.open(row) as other:
            error = np.mean((one.read(range(20)).astype(float) - other.read(range(20))) ** 2)
        assert 10 * np.log10(255**2 / error) > least


@pytest.mark.parametrize("codec", ["raw", "ffv1", "jpeg", "h264"])
def test_a_short_side_a_rate_and_grey(videos, tmp_path, codec):
    shards = packed(videos.take([0, 1]), tmp_path / "packed", codec=codec, short_side=36, channels=1, rate_hz=10)
    metadata = shards.metadata(0)
    assert (metadata.height, metadata.width, metadata.channels, metadata.rate_hz) == (36, 44, 1, 10.0)
    assert metadata.times.count == 10 and metadata.times.step_seconds == pytest.approx(0.1)
    with shards.open(0) as source:
        assert source.read([0]).shape == (1, 36, 44, 1)
        assert [read_number(frame) for frame in source.read([0, 1, 2])] == [0, 2, 5]
    with shards.rows.open(0, channels=3) as source:
        grey = source.read([2])
    assert grey.shape == (1, 36, 44, 3) and (grey == grey[..., :1]).all()


def test_numbers_without_a_scale_keep_their_values(tmp_path):
    deep = np.random.default_rng(1).integers(0, 4000, (6, 20, 24), np.uint16)
    np.save(tmp_path / "a.npy", deep)
    np.save(tmp_path / "b.npy", deep.astype(np.float32) / 7)
    source = cf.Manifest.scan(tmp_path, progress=False)
    for codec, row in (("raw", 0), ("ffv1", 0), ("raw", 1)):
        shards = packed(source.take([row]), tmp_path / f"{codec}{row}", codec=codec, keep_ids=True)
        with source.open(row) as one, shards.open(0) as other:
            assert np.array_equal(one.read(range(6)), other.read(range(6)))
        with pytest.raises(SettingError, match="window"):
            cf.Feed(shards, target=None, clip=cf.Clip(frames=2), frame=cf.Frame(height=8, width=8, channels=1))
        options = {"target": None, "clip": cf.Clip(frames=2), "workers": 0}
        frame = cf.Frame(height=12, width=12, channels=1, window=(0, 1000))
        one, other = (cf.Feed(each, frame=frame, **options).batch(0) for each in (source.take([row]), shards))
        assert np.array_equal(one.clips, other.clips)
    with pytest.raises(SettingError, match="float32; choose codec='raw'"):
        packed(source, tmp_path / "no", codec="ffv1")
    small = packed(source, tmp_path / "small", codec="raw", short_side=10)
    with small.open(0) as source_of_small:
        assert source_of_small.read([0]).dtype == np.uint16 and 1000 < source_of_small.read([0]).mean() < 3000


@pytest.mark.parametrize("size", [(1, 1), (2, 3), (17, 353), (289, 5), (503, 503)])
@pytest.mark.parametrize("codec", ["copy", "raw", "ffv1", "jpeg", "h264"])
def test_odd_and_small_frames(tmp_path, size, codec):
    """FFmpeg's FFV1 allowed four slices for most sizes, and not for 503 x 503."""
    folder, noise = tmp_path / "source", np.random.default_rng(0)
    folder.mkdir()
    np.save(folder / "grey.npy", noise.integers(0, 255, (3, *size), np.uint8))
    np.save(folder / "rgb.npy", noise.integers(0, 255, (3, *size, 3), np.uint8))
    if min(size) > 4:
        write_video(folder / "yuv.avi", numbered_frames(3, height=size[0], width=size[1]), codec="mpeg4")
    source = cf.Manifest.scan(folder, progress=False)
    shards = packed(source, tmp_path / "packed", codec=codec)
    for row in range(len(source)):
        with source.open(row) as one, shards.open(row) as other:
            expected, actual = one.read(range(3)), other.read(range(3))
        assert expected.shape == actual.shape
        assert (codec in ("jpeg", "h264")) or np.array_equal(expected, actual), source.relative_path(row)


def test_windows_with_a_margin(videos, tmp_path):
    table = videos.table.append_column("start_seconds", pa.array([0.3, None, 0.2, None, None, None], pa.float64()))
    table = table.append_column("end_seconds", pa.array([0.6, None, 0.5, None, None, None], pa.float64()))
    windowed = cf.Manifest(table.take([0, 1, 2]), root=videos.root)
    for codec in ("raw", "h264"):
        shards = packed(windowed, tmp_path / codec, codec=codec, margin_seconds=0.1)
        counts = [shards.metadata(row).times.count for row in range(3)]
        assert counts[1] == 30 and counts[0] < 20 and counts[2] < 20
        with shards.open(0) as source:
            assert read_number(source.read([0])[0]) == 6
        assert shards.metadata(0).times.seconds()[0] == pytest.approx(6 * 1001 / 30000)
    clip = {"clip": cf.Clip(frames=3, position="center")}
    shards = cf.Manifest.read(tmp_path / "raw")
    assert batches(shards.take([0, 2]), **clip) == batches(windowed.take([0, 2]), **clip)


@pytest.mark.parametrize(
    "codec", ["raw", *(pytest.param(each, marks=pytest.mark.slow) for each in ("ffv1", "jpeg")), "h264"]
)
def test_the_same_bytes_for_any_number_of_processes(videos, tmp_path, codec):
    settings = PackSettings(codec=codec, short_side=32, rows_per_shard=4)
    for workers in (0, 2):
        pack(videos, out=tmp_path / str(workers) / "packed", settings=settings, workers=workers, progress=False)
    one, other = (contents(tmp_path / workers / "packed") for workers in "02")
    one.pop("manifest.parquet"), other.pop("manifest.parquet")  # holds the absolute path of its folder
    assert one == other and len(one) == 5
    assert verify_packed(tmp_path / "2" / "packed") == []


@pytest.mark.parametrize(("codec", "pixel_format"), [("ffv1", "bgr0"), ("jpeg", "yuvj420p")])
def test_frames_that_are_not_requested_are_not_decoded(videos, tmp_path, codec, pixel_format):
    shards = packed(videos.head(1), tmp_path / "packed", codec=codec, short_side=32)
    with shards.open(0, channels=3) as source:
        assert isinstance(source, EncodedSource) and source.metadata.pixel_format == pixel_format
        source.planes([2, 9, 16])
        assert source._fast_decoder is not None and source._fast_decoder.decoded_count == 3


@pytest.mark.slow
def test_an_encoder_always_gives_the_same_bytes(videos, tmp_path):
    """With x264's macroblock tree one encoding in fifty had other bytes."""
    first = videos.head(1)
    settings = PackSettings(codec="h264", short_side=32)
    shards = set()
    for number in range(150):
        pack(first, out=tmp_path / str(number), settings=settings, workers=0, progress=False)
        shards.add((tmp_path / str(number) / "shards" / "000000.tar").read_bytes())
    assert len(shards) == 1


def test_other_programs_read_the_shards(videos, tmp_path):
    packed(videos, tmp_path / "packed", codec="raw", short_side=32)
    with tarfile.open(tmp_path / "packed" / "shards" / "000000.tar") as shard:
        infos = shard.getmembers()
        assert {(info.mtime, info.uid, info.gid, info.uname, info.gname) for info in infos} == {(0, 0, 0, "", "")}
        assert [info.name for info in infos][:4] == ["00000000.npy", "00000000.json", "00000001.npy", "00000001.json"]
        description = json.load(shard.extractfile("00000000.json"))
        assert description["id"] == videos.column("id")[0].as_py() and description["labels"]["age"] == 31.0
        assert np.lib.format.read_magic(shard.extractfile("00000000.npy")) == (1, 0)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # webdataset leaves the file open
def test_webdataset_reads_the_shards(videos, tmp_path):
    import webdataset

    packed(videos, tmp_path / "packed", codec="raw", short_side=32)
    samples = list(webdataset.WebDataset(str(tmp_path / "packed/shards/000000.tar"), shardshuffle=False).decode())
    assert [sample["__key__"] for sample in samples] == [f"{row:08}" for row in range(6)]
    assert samples[0]["npy"].shape == (30, 32, 40, 3) and samples[5]["json"]["labels"]["age"] == 70.0


def test_a_complete_shard_is_not_made_again(videos, tmp_path):
    settings = PackSettings(codec="jpeg", rows_per_shard=2)
    out = tmp_path / "packed"
    first = pack(videos, out=out, settings=settings, workers=0, progress=False)
    assert (first.shards, first.new_shards) == (3, 3)
    before = contents(out)
    (out / "shards" / "000001.tar").unlink()
    (out / "manifest.parquet").unlink()
    assert pack(videos, out=out, settings=settings, workers=0, progress=False).new_shards == 1
    assert contents(out) == before
    with pytest.raises(SettingError, match=r"short_side \(None before, 32 now\)"):
        pack(videos, out=out, settings=PackSettings(codec="jpeg", rows_per_shard=2, short_side=32), workers=0)
    with pytest.raises(SettingError, match="other rows, files or labels"):
        pack(videos.take([0, 1]), out=out, settings=settings, workers=0)


def test_damage_is_named_by_row(videos, tmp_path):
    shards = packed(videos, tmp_path / "packed", codec="raw", rows_per_shard=4)
    path = tmp_path / "packed" / "shards" / "000001.tar"
    offset = shards.column("member_offset")[5].as_py()
    whole = path.read_bytes()
    for at, row in ((offset, 5), (offset + 9000, 5), (offset - 512, 5), (len(whole) - 1, None)):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        assert [fault.row for fault in verify_packed(tmp_path / "packed")] == [row]
    path.write_bytes(whole[:offset] + bytes([whole[offset + 200] ^ 1]) + whole[offset + 1 :])
    with pytest.raises(ChangedFileError, match="pack --verify"):
        cf.Manifest.read(tmp_path / "packed").open(5)
    path.write_bytes(whole)
    assert verify_packed(tmp_path / "packed") == []


def test_a_missing_or_short_shard_is_an_error_before_training(videos, tmp_path):
    packed(videos, tmp_path / "packed", codec="raw", rows_per_shard=4)
    path = tmp_path / "packed" / "shards" / "000001.tar"
    whole = path.read_bytes()
    path.write_bytes(whole[:-12_000])
    with pytest.raises(TableError, match=r"000001.tar is cut off"):
        cf.Manifest.read(tmp_path / "packed")
    path.unlink()
    with pytest.raises(TableError, match=r"000001.tar is missing"):
        cf.Manifest.read(tmp_path / "packed" / "manifest.parquet")


def test_a_row_that_cannot_be_packed(videos, tmp_path):
    (videos.root / "2.avi").write_bytes(b"RIFF" + bytes(5000))
    with pytest.raises(SourceError, match=r"row 2, 2.avi: .*on_error='record'"):
        packed(videos, tmp_path / "packed", codec="jpeg")
    with pytest.raises(PackError, match="max_bad"):
        packed(videos, tmp_path / "packed", codec="jpeg", on_error="record")
    shards = packed(videos, tmp_path / "packed", codec="jpeg", on_error="record", max_bad=0.5)
    assert shards.metadata(2) is None and "the file" in shards.column("error")[2].as_py()
    assert len(shards.readable()) == 5 and str(videos.root).encode() not in b"".join(
        path.read_bytes() for path in (tmp_path / "packed" / "shards").iterdir()
    )


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"codec": "jpg"}, "jpeg"),
        ({"size": (3, 4), "short_side": 3}, "excludes"),
        ({"codec": "copy", "short_side": 3}, "copy"),
        ({"codec": "raw", "quality": 3}, "quality"),
        ({"quality": 50}, "quality=50"),
        ({"rate_hz": 0}, "rate_hz"),
        ({"channels": 2}, "channels"),
        ({"max_bad": 2}, "max_bad"),
    ],
)
def test_settings_that_cannot_be(settings, message):
    with pytest.raises(SettingError, match=message):
        PackSettings(**settings)


@pytest.mark.parametrize("codec", ["raw", "h264"])
def test_processes_and_ranks_read_one_folder_and_write_nothing(videos, tmp_path, codec):
    shards = packed(videos, tmp_path / "packed", codec=codec, short_side=32)
    before = {path: (path.stat().st_mtime_ns, path.stat().st_size) for path in (tmp_path / "packed").rglob("*")}
    expected = batches(shards)
    assert batches(shards, workers=cf.Workers(count=2, backend="process")) == expected
    options = {"target": "group", "frame": FRAME, "clip": cf.Clip(frames=5), "batch_size": 1, "workers": 0}
    ranks = [cf.Feed(shards, shard=cf.Shard(rank=rank, world_size=2), **options) for rank in range(2)]
    ids = [name for rank in ranks for batch in rank for name in batch.ids]
    assert sorted(ids) == sorted(shards.column("id").to_pylist())
    assert {path: (path.stat().st_mtime_ns, path.stat().st_size) for path in (tmp_path / "packed").rglob("*")} == before
