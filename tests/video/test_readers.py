"""Readers of the user's own: in scans, feeds, worker processes, and before `check_source`."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import own_reader
import pytest

import cinefeed as cf
from cinefeed.core.errors import SettingError, SourceError
from cinefeed.testing import check_source, stored_metadata

pytestmark = pytest.mark.usefixtures("forgotten_readers")
OPENERS = pytest.mark.parametrize("opener", [own_reader.open_array, own_reader.OwnSource])


def frames_of(level, dtype=np.uint8):
    return (np.arange(6, dtype=dtype)[:, None, None] + dtype(level)) * np.ones((16, 18), dtype)


@pytest.fixture
def folder(tmp_path):
    for row in range(6):
        name = f"{row}.own" if row < 4 else f"{row}"  # without a suffix its first bytes tell
        own_reader.write(tmp_path / name, frames_of(10 * row))
    (tmp_path / "notes.txt").write_text("text")
    return tmp_path


@OPENERS
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_conformance(tmp_path, opener, dtype):
    cf.register_reader(".own", opener)
    own_reader.write(tmp_path / "a.OWN", frames_of(7, dtype))
    source = cf.open_video(tmp_path / "a.OWN")
    assert source.metadata.times.count == 6
    metadata = stored_metadata(cf.probe(tmp_path / "a.OWN"))
    check_source(source, reopen=lambda: cf.open_video(tmp_path / "a.OWN", metadata=metadata))


@OPENERS
def test_scan_and_feed(folder, opener):
    cf.register_reader([".own", ".own2"], opener, magic=b"OWN1")
    manifest = cf.Manifest.scan(folder, path_columns="{name}.own", progress=False)
    assert manifest.column("name").to_pylist() == [*"012345"] and manifest.not_read == {}
    assert manifest.column("container").to_pylist() == ["reader:own"] * 6
    rates = manifest.column("rate_hz").to_pylist()
    assert rates == ([20.0] * 6 if opener is own_reader.OwnSource else [None] * 6)
    manifest.write(folder / "m.parquet")
    again = cf.Manifest.read(folder / "m.parquet")
    settings = {"target": None, "clip": cf.Clip(frames=3), "frame": cf.Frame(height=16, width=16, channels=1)}

    def clips(**options):
        feed = cf.Feed(again, **settings, batch_size=2, seed=3, **options)
        batches = [batch.clips.copy() for batch in feed]
        feed.close()
        return batches, feed.choice

    plain, _ = clips(workers=0)
    assert sorted({int(clip.max()) // 10 for batch in plain for clip in batch}) == list(range(6))
    for backend in ("thread", "process"):
        batches, choice = clips(workers=cf.Workers(count=2, backend=backend))
        assert choice.backend == backend
        assert all(np.array_equal(one, other) for one, other in zip(batches, plain, strict=True))


def test_a_worker_process_knows_readers_of_files_that_were_not_scanned(folder):
    cf.register_reader(".own", own_reader.open_array)
    manifest = cf.Manifest.from_table({"path": [f"{row}.own" for row in range(4)]}, root=folder)
    frame = cf.Frame(height=16, width=16, channels=1)
    feed = cf.Feed(
        manifest, target=None, clip=cf.Clip(frames=3), frame=frame, workers=cf.Workers(count=1, backend="process")
    )
    assert len(list(feed)) == 1 and feed.choice.backend == "process"
    feed.close()


def test_an_opener_that_no_process_can_import_leaves_threads(folder, caplog):
    cf.register_reader(".own", lambda path: own_reader.open_array(path))
    manifest = cf.Manifest.from_table({"path": [f"{row}.own" for row in range(4)]}, root=folder)
    frame = cf.Frame(height=16, width=16, channels=1)
    feed = cf.Feed(
        manifest, target=None, clip=cf.Clip(frames=3), frame=frame, workers=cf.Workers(count=1, backend="process")
    )
    assert len(list(feed)) == 1 and feed.choice.backend == "thread" and "lambda" in caplog.text


def test_files_that_cannot_be_read(folder):
    cf.register_reader(".own", own_reader.open_array)
    (folder / "9.own").write_bytes(b"something else, long enough for a header")
    with pytest.raises(
        SourceError, match=r"9\.own: the reader 'own' cannot open it: ValueError: it begins with b'some'"
    ):
        cf.open_video(folder / "9.own")
    manifest = cf.Manifest.scan(folder, progress=False)
    assert next(error for error in manifest.column("error").to_pylist() if error).endswith("begins with b'some'")
    with pytest.raises(SourceError, match="returns one video per file"):
        cf.open_video(folder / "1.own", part="/x")
    own_reader.write(folder / "1.own", frames_of(1)[:, :8])
    with pytest.raises(SourceError, match="scan it again"):
        cf.open_video(folder / "1.own", metadata=manifest.metadata(0))
    cf.register_reader(".sets", lambda path: np.zeros((4, 6, 16, 16), np.uint8))
    (folder / "a.sets").write_bytes(b"x")
    with pytest.raises(SourceError, match=r"its reader returned \(4, 6, 16, 16\)"):
        cf.open_video(folder / "a.sets")


def test_a_program_without_the_reader_says_so(folder):
    cf.register_reader(".own", own_reader.open_array, magic=b"OWN1")
    cf.Manifest.scan(folder, out=folder / "m.parquet", progress=False)
    code = "import sys, cinefeed as cf; cf.Manifest.read(sys.argv[1]).open(0)"
    done = subprocess.run([sys.executable, "-c", code, folder / "m.parquet"], capture_output=True, text=True)
    assert "needs the reader 'own', which is not registered in this program; call cinefeed.register" in done.stderr


def test_a_builtin_suffix_is_replaced_only_if_asked(tmp_path):
    np.save(tmp_path / "a.npy", np.zeros((4, 16, 16), np.uint8))
    with pytest.raises(SettingError, match=r"\.npy is already supported; pass replace=True"):
        cf.register_reader(".npy", np.load)
    cf.register_reader(".npy", upside_down, replace=True)
    with cf.open_video(tmp_path / "a.npy") as source:
        assert source.read([0]).max() == 255


def upside_down(path: Path):
    return 255 - np.load(path)


def test_a_suffix_has_one_reader():
    cf.register_reader(".own", own_reader.open_array)
    cf.register_reader(".own", own_reader.open_array)
    with pytest.raises(SettingError, match=r"\.own is already read by 'own'"):
        cf.register_reader([".other", ".own"], own_reader.OwnSource)
    cf.register_reader([".other", ".own"], own_reader.OwnSource, replace=True)


@pytest.mark.parametrize(
    "wrong", [("own", np.load), ((), np.load), (".", np.load), (".own", "np.load"), (".own", np.load, 3)]
)
def test_wrong_use(wrong):
    suffixes, opener, *magic = wrong
    with pytest.raises(SettingError, match="register_reader"):
        cf.register_reader(suffixes, opener, **({"magic": magic[0]} if magic else {}))
