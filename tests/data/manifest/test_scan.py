"""Scanning with a probe that counts its calls; the real one runs in test_real_videos.py."""

import json
import os
import threading
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from cinefeed.core.errors import MissingExtraError, SettingError, SourceError, TableError
from cinefeed.data.manifest import scan
from cinefeed.data.manifest.find import find_videos
from cinefeed.data.manifest.manifest import Manifest
from cinefeed.data.manifest.summary import bytes_on_disk
from cinefeed.video.metadata import VideoMetadata
from cinefeed.video.read_options import ReadOptions
from cinefeed.video.timestamps import FrameTimes, Timestamps


def metadata(frames=8, **changes):
    ticks = Timestamps(0, 512, frames, (1, 12800))
    values = {"height": 4, "width": 6, "channels": 3, "bits": 8, "rate_hz": 25.0, "codec": "h264", "container": "mp4"}
    return VideoMetadata(
        **{
            **values,
            "times": ticks.times(start_seconds=0.0),
            "ticks": ticks,
            "key_frames": np.array([0], np.int32),
            **changes,
        }
    )


class Probe:
    """Files hold the number of their frames as text; `bad` is no video, `slow` one that breaks."""

    def __init__(self):
        self.names = []
        self.fail_at = None
        self.lock = threading.Lock()

    def __call__(self, path, *, verify, **reading):
        with self.lock:
            self.names.append(path.name)
            if self.fail_at is not None and len(self.names) > self.fail_at:
                raise KeyboardInterrupt
        text = path.read_text()
        if text == "bad":
            raise SourceError(f"{path.name} is no video")
        return metadata(5, error="breaks after 5 frames") if text == "broken" else metadata(int(text))


@pytest.fixture
def probe(monkeypatch):
    probe = Probe()
    monkeypatch.setattr(scan, "probe", probe)
    return probe


@pytest.fixture
def folder(tmp_path):
    root = tmp_path / "studies"
    for i in range(6):
        path = root / f"p{i // 2}" / f"{i}.mp4"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(str(10 + i))
    (root / "notes.txt").write_text("no video")
    return root


def frames_of(manifest):
    return dict(zip(manifest.column("path").to_pylist(), manifest.column("num_frames").to_pylist(), strict=True))


def test_videos_are_found_recursively_and_sorted(folder):
    for name in ("p1/scan.NII.GZ", "p1/other.gz", ".hidden.mp4", ".trash/x.mp4", "a.mp4"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("1")
    (folder / "loop").symlink_to(folder)
    (folder / "linked.mp4").symlink_to(folder / "a.mp4")
    (folder / "elsewhere").symlink_to(folder.parent / "far")
    (folder.parent / "far").mkdir()
    (folder.parent / "far" / "z.mp4").write_text("12")
    result = find_videos(folder).table.to_pydict()
    assert result["path"] == [
        *["a.mp4", "elsewhere/z.mp4", "linked.mp4", "p0/0.mp4", "p0/1.mp4", "p1/2.mp4", "p1/3.mp4", "p1/scan.NII.GZ"],
        *["p2/4.mp4", "p2/5.mp4"],
    ]
    assert result["size_bytes"][:2] == [1, 2]
    assert result["mtime_ns"][0] == (folder / "a.mp4").stat().st_mtime_ns


def test_a_link_to_nowhere_is_named(folder, probe):
    (folder / "gone.mp4").symlink_to(folder / "elsewhere" / "gone.mp4")
    (folder / "round").symlink_to(folder / "round")
    manifest = Manifest.scan(folder)
    assert len(manifest) == 6
    assert manifest.not_read == {"link to nowhere": {"files": 2, "first": ["gone.mp4", "round"]}}


@pytest.mark.parametrize(
    ("files", "kind"),
    [
        (["settings.toml", "spec.json", "best.weights.h5", "checkpoint.npz"], "run folder"),
        (["folds.json", "fold1/spec.json", "fold1/settings.toml", "fold1/best.weights.h5"], "cross-validation"),
        (["encoded.jsonl", "features.parquet", "videos/0.mp4.npy"], "folder of features"),
    ],
)
def test_folders_that_cinefeed_wrote_are_not_searched(folder, probe, files, kind):
    for file in files:
        (folder / "runs" / "a" / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / "runs" / "a" / file).write_bytes(b"\x89HDF\r\n\x1a\n")
    manifest = Manifest.scan(folder)
    assert len(manifest) == 6
    assert manifest.not_read == {kind: {"files": 1, "first": ["runs/a"]}}
    assert manifest.history == [("videos found", 6)], "no file of the data was left out"
    assert f"not read   1 {kind} (runs/a)" in str(manifest)
    with pytest.raises(TableError, match=f"it contains 1 {kind}"):
        Manifest.scan(folder / "runs")


def test_a_file_of_several_samples_counts_once_in_the_size_on_disk(tmp_path):
    np.save(tmp_path / "study.npy", np.zeros((60, 5, 32, 32), np.uint8))
    np.save(tmp_path / "other.npy", np.zeros((60, 5, 32, 32), np.uint8))
    size = sum(path.stat().st_size for path in tmp_path.iterdir())
    manifest = Manifest.scan(tmp_path, reading=ReadOptions(axes="NTHW"))
    assert len(manifest) == 120 and bytes_on_disk(manifest.table) == size
    assert "bytes      0.615 MB" in str(manifest)


def test_one_file_that_is_not_read_is_a_file(folder, probe):
    (folder / "LICENSE").write_text("MIT")
    assert Manifest.scan(folder).history == [("videos found (1 file not read)", 6)]


def test_files_that_are_not_read_are_named(folder, probe, tmp_path):
    for i in range(7):
        (folder / "p0" / f"{i}.avs").write_text("script")
    (folder / "p1" / "1.2.840.99").write_bytes(bytes(2000))
    (folder / "p1" / "page").write_bytes(b"%PDF-1.7")
    (folder / "p2" / "sound.wav").write_bytes(b"RIFF\0\0\0\0WAVEfmt ")
    for beside in ("labels.csv", "readme.md", ".hidden.avs", "m.parquet"):
        (folder / beside).write_text("text")
    out = tmp_path / "m.parquet"
    manifest = Manifest.scan(folder, out=out)
    assert manifest.not_read == {
        ".avs": {"files": 7, "first": [f"p0/{i}.avs" for i in range(5)]},
        "PDF without a suffix": {"files": 1, "first": ["p1/page"]},
        "audio (.wav)": {"files": 1, "first": ["p2/sound.wav"]},
        "without a suffix": {"files": 1, "first": ["p1/1.2.840.99"]},
    }
    first = ", ".join(f"p0/{i}.avs" for i in range(5))
    assert manifest.history == [("videos found (10 files not read)", 6)]
    assert f"not read   7 .avs ({first} ...), 1 PDF without a suffix (p1/page), " in str(manifest)
    assert Manifest.read(out).not_read == manifest.not_read
    for private in (Manifest.scan(folder, private=True), manifest.as_private()):
        assert {kind: files["files"] for kind, files in private.not_read.items()} == {
            kind: files["files"] for kind, files in manifest.not_read.items()
        }
        assert not any(files["first"] for files in private.not_read.values())
        assert "p0/0.avs" not in str(private)


def test_unfinished_downloads_are_counted_and_are_no_rows(folder, probe):
    names = ["a.mp4.part", "b.MP4.crdownload", "c.mp4.tmp", "d.partial", "e.mp4~"]
    for name in names:
        (folder / "p0" / name).write_bytes(b"\0\0\0\x18ftypisom")
    manifest = Manifest.scan(folder)
    assert len(manifest) == 6 and not set(names) & set(probe.names)
    first = [f"p0/{name}" for name in names]
    assert manifest.not_read == {"unfinished download": {"files": 5, "first": first}}


def test_what_is_named_as_an_image_and_is_none_is_called_what_it_is(folder, probe):
    slide = b"II*\0" + bytes(124) + b"DICM\2\0\0\0UL\4\0"
    (folder / "p0" / "IM1.tif").write_bytes(slide)
    (folder / "alone").mkdir()
    (folder / "alone" / "IM2.TIFF").write_bytes(slide)
    (folder / "alone" / "cine.png").write_bytes(b"\0\0\0\x18ftypisom")
    (folder / "p1" / "real.jpg").write_bytes(b"\xff\xd8\xff")
    assert Manifest.scan(folder).not_read == {
        "dicom named as an image (.tif)": {"files": 1, "first": ["p0/IM1.tif"]},
        "dicom named as an image (.tiff)": {"files": 1, "first": ["alone/IM2.TIFF"]},
        "video named as an image (.png)": {"files": 1, "first": ["alone/cine.png"]},
        "image beside a video (.jpg)": {"files": 1, "first": ["p1/real.jpg"]},
    }


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_pipe_is_named_and_not_opened(folder, probe):
    for name in ("pipe", "pipe.mp4"):
        os.mkfifo(folder / name)
    manifest = Manifest.scan(folder)
    assert len(manifest) == 6
    assert manifest.not_read == {"pipe, device or socket": {"files": 2, "first": ["pipe", "pipe.mp4"]}}


def test_names_that_are_no_text_are_counted(folder, probe):
    try:
        Path(os.fsdecode(os.fsencode(folder) + b"/\xff.avs")).write_text("1")
    except OSError:
        pytest.skip("this file system takes no such name")
    manifest = Manifest.scan(folder)
    assert manifest.not_read[".avs"] == {"files": 1, "first": ["\\xff.avs"]}
    str(manifest).encode()


@pytest.mark.skipif(os.geteuid() == 0 if hasattr(os, "geteuid") else True, reason="root reads everything")
def test_what_may_not_be_read_is_named(folder, probe):
    (folder / "p0").chmod(0)
    (folder / "p1" / "IM1").write_text("1")
    (folder / "p1" / "IM1").chmod(0)
    try:
        manifest = Manifest.scan(folder)
    finally:
        (folder / "p0").chmod(0o700)
    assert len(manifest) == 4
    assert manifest.not_read == {
        "file that cannot be read": {"files": 1, "first": ["p1/IM1"]},
        "folder that cannot be read": {"files": 1, "first": ["p0/"]},
    }


def test_frames_and_masks_are_refused(folder, probe):
    for name in ("1.jpg", "2.jpg", "1.png", "2.png"):
        (folder / "p0" / name).write_bytes(b"")
    assert len(Manifest.scan(folder)) == 6  # beside videos they are no frames
    (folder / "frames").mkdir()
    for name in ("1.jpg", "2.jpg", "1.png", "2.png"):
        (folder / "frames" / name).write_bytes(b"")
    with pytest.raises(TableError, match=r"frames, with \*.jpg and \*.png.*--frames '\*.jpg' or ReadOptions"):
        Manifest.scan(folder)
    with pytest.raises(TableError, match="may be frames and masks") as error:
        Manifest.scan(folder, private=True)
    assert "with *.jpg" not in str(error.value) and str(folder) not in str(error.value)
    assert "frames" in find_videos(folder, reading=ReadOptions(frames="*.jpg")).table.column("path").to_pylist()


def test_parts_come_in_the_order_of_their_numbers(tmp_path):
    np.save(tmp_path / "a.npy", np.zeros((12, 2, 8, 8), np.uint8))
    np.savez(tmp_path / "b.npz", v10=np.zeros((3, 8, 8)), v9=np.zeros((11, 2, 8, 8)))
    parts = Manifest.scan(tmp_path).column("part").to_pylist()
    assert parts == [*(f"[{i}]" for i in range(12)), *(f"/v9[{i}]" for i in range(11)), "/v10"]


def test_no_videos(tmp_path):
    with pytest.raises(TableError, match="it contains no files"):
        Manifest.scan(tmp_path)
    (tmp_path / "a.txt").write_text("")
    with pytest.raises(TableError, match=r"no videos in .*: it contains 1 \.txt.*\.mp4"):
        Manifest.scan(tmp_path)
    with pytest.raises(TableError, match="is not a folder"):
        Manifest.scan(tmp_path / "none")


def test_a_name_that_is_no_text(tmp_path):
    try:
        Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff.mp4")).write_text("1")
    except OSError:
        pytest.skip("this file system takes no such name")
    with pytest.raises(TableError, match="not UTF-8"):
        Manifest.scan(tmp_path)


def test_a_scan_probes_each_file_once_in_any_number_of_threads(folder, probe):
    calls = []
    manifests = [
        Manifest.scan(folder, workers=workers, progress=lambda done, total: calls.append((done, total)))
        for workers in (1, 3)
    ]
    assert sorted(probe.names) == sorted(2 * [f"{i}.mp4" for i in range(6)])
    assert frames_of(manifests[0]) == {f"p{i // 2}/{i}.mp4": 10 + i for i in range(6)}
    assert manifests[0].table.equals(manifests[1].table)
    assert calls == 2 * [(done, 6) for done in range(7)]
    assert manifests[0].history == [("videos found", 6)]


def test_labels_and_folders_become_columns(folder, probe, tmp_path):
    (tmp_path / "labels.csv").write_text("patient;age\np0;61,5\np2;48\np9;50\n")
    manifest = Manifest.scan(
        folder, labels=tmp_path / "labels.csv", on="patient", path_columns="{patient}/{clip}", unmatched="ignore"
    )
    assert manifest.column("clip").to_pylist() == ["0", "1", "4", "5"]
    assert manifest.column("age").to_pylist() == [61.5, 61.5, 48.0, 48.0]
    assert manifest.history == [
        ("videos found", 6),
        ("with a row of labels (joined on patient; 3 rows, 1 without a video)", 4),
    ]
    assert sorted(probe.names) == ["0.mp4", "1.mp4", "4.mp4", "5.mp4"]  # those without a label are not read
    assert manifest.labels == ["patient", "clip", "age"]


def test_a_stray_file_beside_the_folders_of_a_pattern(folder, probe, caplog):
    Manifest.scan(folder, path_columns="{patient}")
    assert not caplog.records
    (folder / "stray.mp4").write_text("9")
    manifest = Manifest.scan(folder, path_columns="{patient}")
    assert "stray" in manifest.column("patient").to_pylist()
    assert "a folder for 6 of 7 videos, and the file name for the others (first: stray.mp4)" in caplog.text


def test_paths_that_do_not_follow_the_pattern(folder, probe):
    (folder / "stray.mp4").write_text("9")
    with pytest.raises(TableError, match=r"1 of 7 videos do not match it \(first: stray.mp4\)"):
        Manifest.scan(folder, path_columns="{patient}/{clip}")
    manifest = Manifest.scan(folder, path_columns="{patient}/{clip}", unmatched="ignore")
    assert len(manifest) == 6
    with pytest.raises(TableError, match="7 of 7 videos"):
        Manifest.scan(folder, path_columns="{a}/{b}/{c}", unmatched="ignore")


def test_stretches_of_a_video_share_its_facts(folder, probe):
    labels = pa.table({"path": ["p0/0", "p0/0", "p0/1"], "start_seconds": [0, 2, 1], "end_seconds": [2, 4, 3]})
    manifest = Manifest.scan(folder, labels=labels, unmatched="ignore")
    assert manifest.column("id").to_pylist() == ["p0/0.mp4@0-2", "p0/0.mp4@2-4", "p0/1.mp4@1-3"]
    assert manifest.column("num_frames").to_pylist() == [10, 10, 11]
    assert sorted(probe.names) == ["0.mp4", "1.mp4"]


@pytest.mark.parametrize(
    ("seconds", "message"),
    [
        ({"start_seconds": [2.0, 0.0], "end_seconds": [1.0, 3.0]}, r"sample p0/0\.mp4@2-1 ends before it starts"),
        ({"start_seconds": [0.0, 2.0], "end_seconds": [1.0, 2.0]}, r"sample p0/0\.mp4@2-2 ends at its start"),
        ({"start_seconds": [-0.5, 2.0], "end_seconds": [1.0, 3.0]}, "starts before its video.*start_seconds -0.5"),
        ({"start_seconds": [-0.5, 2.0]}, "starts before its video"),
        ({"end_seconds": [0.0, 2.0]}, "ends at its start"),
        ({"end_seconds": [-1.0, 2.0]}, "ends before it starts"),
    ],
)
def test_seconds_that_hold_no_frame_are_refused(folder, probe, seconds, message):
    labels = pa.table({"path": ["p0/0", "p0/0"], **seconds})
    with pytest.raises(TableError, match=message):
        Manifest.scan(folder, labels=labels, unmatched="ignore")
    with pytest.raises(TableError, match="correct its seconds"):
        Manifest.from_table(pa.table({"path": ["a.mp4", "a.mp4"], **seconds}))


def test_ids_of_a_label_table_must_be_their_own(folder, probe):
    labels = pa.table({"patient": ["p0", "p1", "p2"], "id": ["1", "2", "3"]})
    with pytest.raises(TableError, match="rename a column 'id'"):
        Manifest.scan(folder, labels=labels, on="patient", path_columns="{patient}")


def test_damaged_files_stay_with_their_error(folder, probe):
    (folder / "p0/0.mp4").write_text("bad")
    (folder / "p0/1.mp4").write_text("broken")
    manifest = Manifest.scan(folder)
    assert manifest.column("error").to_pylist() == [
        "0.mp4 is no video",
        "breaks after 5 frames",
        None,
        None,
        None,
        None,
    ]
    assert manifest.column("num_frames").to_pylist()[:2] == [0, 5]
    assert manifest.metadata(0) is None
    assert manifest.metadata(1).error == "breaks after 5 frames"


def test_an_interrupted_scan_continues(folder, probe, tmp_path):
    out = tmp_path / "m.parquet"
    probe.fail_at = 4
    with pytest.raises(KeyboardInterrupt):
        Manifest.scan(folder, out=out, workers=1)
    assert not out.exists()
    journal = scan.journal_path(out)
    done = [json.loads(line)["path"] for line in journal.read_text().splitlines()]
    assert len(done) >= 1
    journal.write_text(journal.read_text() + '{"path": "p2/5.mp4", "num_fr')  # torn by the end of the process
    probe.fail_at, probe.names = None, []
    manifest = Manifest.scan(folder, out=out)
    assert sorted(probe.names) == sorted({f"{i}.mp4" for i in range(6)} - {Path(path).name for path in done})
    assert not journal.exists()
    assert frames_of(manifest) == {f"p{i // 2}/{i}.mp4": 10 + i for i in range(6)}
    assert manifest.table.equals(Manifest.scan(folder).table)
    assert manifest.table.equals(Manifest.read(out).table)


def test_a_rescan_reads_only_what_changed(folder, probe, tmp_path):
    out = tmp_path / "m.parquet"
    (folder / "p2/4.mp4").write_text("bad")
    Manifest.scan(folder, out=out)
    probe.names = []
    (folder / "p0/0.mp4").write_text("123")  # another size
    os.utime(folder / "p1/2.mp4", ns=(1, 1))  # another time
    (folder / "p1/new.mp4").write_text("7")
    (folder / "p1/3.mp4").unlink()
    calls = []
    manifest = Manifest.scan(folder, out=out, progress=lambda done, total: calls.append((done, total)))
    assert sorted(probe.names) == ["0.mp4", "2.mp4", "4.mp4", "new.mp4"]  # what held no video is tried again
    assert calls[0] == (2, 6)
    assert frames_of(manifest) == {
        **{"p0/0.mp4": 123, "p0/1.mp4": 11, "p1/2.mp4": 12, "p1/new.mp4": 7, "p2/4.mp4": 0, "p2/5.mp4": 15}
    }


def test_a_deeper_look_reads_again_a_shallower_one_does_not(folder, probe, tmp_path):
    out = tmp_path / "m.parquet"
    Manifest.scan(folder, out=out, verify="packets")
    Manifest.scan(folder, out=out, verify="decode")
    assert len(probe.names) == 12
    Manifest.scan(folder, out=out, verify="packets")
    assert len(probe.names) == 12


def test_a_rescan_keeps_the_split(folder, probe, tmp_path):
    out = tmp_path / "m.parquet"
    scanned = Manifest.scan(folder, out=out, path_columns="{patient}")
    parts = scanned.split(val=0.3, test=0.3, group="patient")
    parts.all.write(out)
    for patient in ("p1", "p7", "p8"):
        (folder / patient).mkdir(exist_ok=True)
        (folder / patient / "late.mp4").write_text("9")
    again = Manifest.scan(folder, out=out, path_columns="{patient}")
    assert again.column("split").null_count == 3
    resplit = again.split(val=0.3, test=0.3, group="patient", keep="split")
    old = dict(zip(parts.all.column("id").to_pylist(), parts.all.column("split").to_pylist(), strict=True))
    new = dict(zip(resplit.all.column("id").to_pylist(), resplit.all.column("split").to_pylist(), strict=True))
    assert {sample: new[sample] for sample in old} == old
    assert new["p1/late.mp4"] == old["p1/2.mp4"]


@pytest.mark.parametrize("place", ["file.txt/m.parquet", "folder.parquet"])
def test_an_output_that_cannot_be_written(folder, probe, tmp_path, place):
    (tmp_path / "file.txt").write_text("")
    (tmp_path / "folder.parquet").mkdir()
    with pytest.raises(TableError, match=r"cannot write|cannot be written|exists and is not a manifest"):
        Manifest.scan(folder, out=tmp_path / place)
    assert probe.names == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file.txt", "folder.parquet", "studies"]


def test_another_file_is_not_overwritten(folder, probe, tmp_path):
    out = tmp_path / "m.parquet"
    out.write_text("my thesis")
    with pytest.raises(TableError, match="exists and is not a manifest"):
        Manifest.scan(folder, out=out)
    assert out.read_text() == "my thesis"


def test_an_error_that_is_not_the_files_stops_the_scan(folder, monkeypatch, tmp_path):
    def probe(path, *, verify, **reading):
        raise MissingExtraError("pydicom", extra="dicom")

    monkeypatch.setattr(scan, "probe", probe)
    with pytest.raises(MissingExtraError):
        Manifest.scan(folder, out=tmp_path / "m.parquet")
    assert [path.name for path in tmp_path.iterdir()] == ["studies"]


def test_settings_of_a_scan(folder, probe):
    with pytest.raises(SettingError, match="did you mean 'decode'"):
        Manifest.scan(folder, verify="decod")
    with pytest.raises(SettingError, match="workers=0"):
        Manifest.scan(folder, workers=0)
    with pytest.raises(SettingError, match="on='study' needs a table of labels"):
        Manifest.scan(folder, on="study")


def test_a_bar_is_drawn_on_a_terminal_alone(folder, probe, monkeypatch, capsys):
    Manifest.scan(folder)
    assert capsys.readouterr() == ("", "")
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    Manifest.scan(folder)
    assert "6/6" in capsys.readouterr().err
    Manifest.scan(folder, progress=False)
    assert capsys.readouterr() == ("", "")


def test_arrays_without_a_rate(folder, monkeypatch):
    times = FrameTimes(0.0, float("nan"), 7)
    monkeypatch.setattr(
        scan, "probe", lambda path, *, verify, **reading: metadata(ticks=None, times=times, rate_hz=float("nan"))
    )
    assert Manifest.scan(folder).metadata(3).times.count == 7
