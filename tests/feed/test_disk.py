"""Read errors of the disk are tried again, then raised; only what cannot be decoded is replaced."""

import errno

import numpy as np
import pytest

import cinefeed as cf
from cinefeed.core.errors import DecodeError, FeedError, SourceError
from cinefeed.data.manifest.rows import Rows
from cinefeed.feed import clip_pipeline as clips
from cinefeed.feed.disk_errors import disk_error

IO_ERROR = OSError(errno.EIO, "Input/output error")


def make(manifest, **changes):
    settings = {
        "target": "sick",
        "clip": cf.Clip(frames=4),
        "frame": cf.Frame(height=16, width=16, channels=1),
        "batch_size": 4,
        "workers": 0,
        "on_error": "replace",
        "max_bad": 0.5,
    }
    return cf.Feed(manifest, **{**settings, **changes})


@pytest.fixture
def fails(monkeypatch):
    """Let the opening of a row fail with an error, a number of times."""
    monkeypatch.setattr(clips, "_PAUSES", (0.0, 0.0))
    original, left = Rows.open, {}

    def opening(rows, row, **settings):
        if left.get(row, (None, 0))[1]:
            error, times = left[row]
            left[row] = error, times - 1
            raise error
        return original(rows, row, **settings)

    monkeypatch.setattr(Rows, "open", opening)
    return left


def wrapped(error):
    """Return the error that a source makes of another."""
    try:
        try:
            raise error
        except OSError as reason:
            raise DecodeError("the file breaks") from reason
    except DecodeError as made:
        return made


@pytest.mark.parametrize("error", [IO_ERROR, wrapped(OSError(errno.ESTALE, "Stale file handle"))], ids=["bare", "told"])
@pytest.mark.parametrize("workers", [0, 2])
def test_an_error_that_passes_changes_nothing(manifest, fails, error, workers):
    expected = [batch.clips.tobytes() for batch in make(manifest)]
    feed = make(manifest, workers=workers)
    first, second = feed.plan().rows[:2].tolist()  # of the first batch, which is done before the next epoch begins
    fails |= {first: (error, 2), second: (error, 1)}
    assert [batch.clips.tobytes() for batch in feed] == expected
    assert feed.stats().retried == 3 and not feed.stats().skipped
    assert feed.stats().as_dict()["retried"] == 3


@pytest.mark.parametrize("error", [IO_ERROR, wrapped(TimeoutError(errno.ETIMEDOUT, "Connection timed out"))])
def test_an_error_that_stays_is_raised_and_never_replaced(manifest, fails, error):
    fails[3] = error, 3
    feed = make(manifest)
    with pytest.raises(FeedError, match=r"row 3, 03\.npy: the disk gave an error 3 times: \[Errno \d+\]") as caught:
        list(feed)
    assert not isinstance(caught.value, SourceError) and not feed.stats().skipped


@pytest.mark.parametrize(
    "error",
    [
        SourceError("it is no video"),
        wrapped(FileNotFoundError(errno.ENOENT, "No such file")),
        wrapped(PermissionError(errno.EACCES, "Permission denied")),
    ],
    ids=str,
)
def test_another_error_is_not_tried_again_and_replaced(manifest, fails, error):
    fails[3] = error, 1
    feed = make(manifest)
    assert "v3" not in {str(name) for batch in feed for name in batch.ids}
    assert feed.stats().retried == 0 and len(feed.stats().skipped) == 1


def test_a_decoder_that_does_not_tell_why_it_stopped(manifest, monkeypatch):
    """FFmpeg's errors are lost on the way, so the file is read through: only the system knows of a broken disk."""
    path = manifest.path_of(0)
    assert disk_error(DecodeError("it breaks"), path) is None
    assert disk_error(DecodeError("it breaks"), path.with_name("none.npy")) is None
    assert disk_error(ZeroDivisionError(), path) is None

    def refuse(self, mode):
        raise IO_ERROR

    monkeypatch.setattr(type(path), "open", refuse)
    assert disk_error(DecodeError("it breaks"), path) is IO_ERROR
    assert disk_error(ZeroDivisionError(), path) is None


def test_an_error_of_ffmpeg_itself_is_the_files_own(manifest):
    import av

    path = manifest.root / "cut.mp4"
    path.write_bytes(np.zeros(999, np.uint8).tobytes())
    assert disk_error(av.error.OSError(errno.EIO, "Input/output error", str(path)), path) is None
