"""The public checks pass what is right, and find what is wrong."""

import time
from dataclasses import replace

import numpy as np
import pytest

from cinefeed import open_video, probe
from cinefeed.core.errors import SettingError, SourceError
from cinefeed.data.manifest.columns import metadata_to_row
from cinefeed.testing import check_source, numbered_frames, read_number, stored_metadata, videos, write_video
from cinefeed.video.metadata import VideoMetadata
from cinefeed.video.planes import Planes
from cinefeed.video.timestamps import FrameTimes


def test_numbers_survive_coding_and_resizing(tmp_path):
    frames = numbered_frames(40, height=48, width=80, first=40000)
    path = write_video(tmp_path / "hard.mp4", frames, options={"crf": "40"})
    with open_video(path) as source:
        read = source.read(range(40))
    assert [read_number(frame) for frame in read] == list(range(40000, 40040))
    assert [read_number(frame[::2, ::2]) for frame in read] == list(range(40000, 40040))
    assert read_number(numbered_frames(1)[0]) == 0
    assert read_number(numbered_frames(1, first=65535)[0]) == 65535
    assert read_number(numbered_frames(1, first=9)[0, :, :, 0].astype(np.uint16) * 257) == 9


def test_a_matrix_that_pyav_does_not_convert_to_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(videos, "_SPACES", {**videos._SPACES, "bt2020": "ITU2020"})
    with pytest.raises(SettingError, match="cannot convert to bt2020, which was asked for; PyAV 18 can"):
        write_video(tmp_path / "any.mp4", numbered_frames(2), matrix="bt2020")
    assert not (tmp_path / "any.mp4").exists()


def test_the_same_frames_give_the_same_file(tmp_path):
    for codec in ("h264", "mpeg4"):
        both = [write_video(tmp_path / f"{n}.mp4", numbered_frames(20), codec=codec) for n in "ab"]
        assert both[0].read_bytes() == both[1].read_bytes()


class Faulty:
    """A source that does one thing wrong."""

    def __init__(self, source, *, length=None, **wrong):
        self._source, self._length = source, length
        self._wrong = {name: fault(source) for name, fault in wrong.items()}

    def __getattr__(self, name):
        return self._wrong[name] if name in self._wrong else getattr(self._source, name)

    def __len__(self):
        return len(self._source) if self._length is None else self._length

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def off_by_one_backwards(source):
    return lambda numbers: source.read([max(n - 1, 0) for n in numbers] if list(numbers)[-1:] < [5] else numbers)


def sorts_its_answers(source):
    return lambda numbers: source.read(sorted(numbers))


def returns_fewer(source):
    return lambda numbers: source.read(list(dict.fromkeys(numbers)))


def misreads_arrays(source):
    return lambda numbers: source.read(sorted(numbers) if isinstance(numbers, np.ndarray) else numbers)


def wraps_around(source):
    return lambda numbers: source.read([n % len(source) for n in numbers])


def planes_wrap_around(source):
    return lambda numbers: source.planes([n % len(source) for n in numbers])


def never_closes(source):
    return lambda: None


def closes_once(source):
    def close():
        if source._closed:
            raise ValueError("it is closed already")
        source.close()

    return close


def returns_other_types(source):
    return lambda numbers: source.read(numbers).astype(np.int32)


def of_planes(change):
    """Return a fault of `planes`: what it returns goes through `change(planes, colour)`."""

    def fault(source):
        def planes(numbers):
            source_planes = source.planes(numbers)
            return Planes(*change(source_planes.frames, source_planes.colour))

        return planes

    return fault


one_plane = of_planes(lambda frames, colour: ([parts[:1] for parts in frames], colour))
one_frame = of_planes(lambda frames, colour: (frames[:1], colour))
deeper = of_planes(lambda frames, colour: (frames, replace(colour, bits=10)))
turned = of_planes(lambda frames, colour: (frames, replace(colour, rotation=90)))
windowed = of_planes(lambda frames, colour: (frames, replace(colour, window=(0.0, 99.0))))
cropped = of_planes(lambda frames, colour: ([(parts[0][1:], *parts[1:]) for parts in frames], colour))
other_range = of_planes(lambda frames, colour: (frames, replace(colour, full_range=not colour.full_range)))


def wears_out_after(good):
    """Return a fault of `read`: from some read on, the frames are darker."""

    def fault(source):
        requests = []

        def read(numbers):
            requests.append(numbers)
            return source.read(numbers) // (2 if len(requests) > good else 1)

        return read

    return fault


def begins_badly(source):
    """The first frames of all are those of a decoder that has not yet begun."""
    requests = []

    def read(numbers):
        requests.append(numbers)
        return source.read(numbers) // (2 if len(requests) == 1 else 1)

    return read


def takes_offence(source):
    """Once an index was refused, the frames are darker."""
    refused = []

    def read(numbers):
        try:
            return source.read(numbers) // (2 if refused else 1)
        except SourceError:
            refused.append(numbers)
            raise

    return read


def reuses_its_buffers(source):
    """Return a fault of `planes`: what is handed out is overwritten by the next call."""
    buffers = {}

    def planes(numbers):
        source_planes = source.planes(numbers)
        for place, parts in enumerate(source_planes.frames):
            for buffer, part in zip(buffers.setdefault(place, [part.copy() for part in parts]), parts, strict=True):
                buffer[:] = part
        return Planes([tuple(buffers[place]) for place in range(len(source_planes.frames))], source_planes.colour)

    return planes


def wipes_its_buffers():
    """Return faults of `planes` and `close`, which work together: closing overwrites what was handed out."""
    handed_out = []

    def copied(frames, colour):
        copies = [tuple(part.copy() for part in parts) for parts in frames]
        handed_out.extend(copies)
        return copies, colour

    def close_and_wipe(source):
        def close():
            source.close()
            for parts in handed_out:
                parts[0][:] = 0

        return close

    return {"planes": of_planes(copied), "close": close_and_wipe}


def with_metadata(**changes):
    return lambda source: replace(source.metadata, **changes)


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    frames = numbered_frames(30, height=32, width=32, first=1)
    return write_video(tmp_path_factory.mktemp("videos") / "good.mp4", frames)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"length": 29}, "len"),
        ({"metadata": with_metadata(times=FrameTimes(0.0, 0.04, 0)), "length": 0}, "len"),
        ({"metadata": with_metadata(height=33)}, "the metadata have 33 x 32"),
        ({"read": returns_other_types}, "read returns int32"),
        ({"read": off_by_one_backwards}, "differs from the one read in order"),
        ({"read": sorts_its_answers}, "differs from the one read in order"),
        ({"read": misreads_arrays}, "read by an array"),
        ({"read": returns_fewer}, "frames were requested"),
        ({"read": wraps_around}, "read: index .* does not raise SourceError"),
        ({"planes": planes_wrap_around}, "planes: index .* does not raise SourceError"),
        ({"close": never_closes}, "a closed source does not raise"),
        ({"close": closes_once}, "closing twice raises"),
        ({"planes": one_plane}, "planes, not 3"),
        ({"planes": one_frame}, "another number of frames"),
        ({"planes": deeper}, "planes of 10 bits are"),
        ({"planes": turned}, "rotation is 90 in the planes, 0 in the metadata"),
        ({"planes": windowed}, "window is .* in the planes, None in the metadata"),
        ({"planes": cropped}, "the first plane is"),
        ({"planes": other_range}, "planes and read differ"),
        ({"read": begins_badly}, "planes and read differ"),
        ({"read": wears_out_after(15)}, "first again: frame .* differs"),
        ({"read": takes_offence}, "after errors: frame .* differs"),
        ({"planes": reuses_its_buffers}, "changed when others were read"),
        (wipes_its_buffers(), "changed when the source was closed"),
        ({"metadata": with_metadata(header_frames=np.int64(30))}, "not plain data"),
        ({"metadata": with_metadata(header_frames=2**40)}, "not plain data"),
    ],
)
def test_what_is_wrong_is_found(path, wrong, message):
    with open_video(path) as source, pytest.raises(AssertionError, match=message):
        check_source(Faulty(source, **wrong))


def test_what_is_right_is_not(path):
    source = open_video(path)
    check_source(Faulty(source), reopen=lambda: Faulty(open_video(path, metadata=stored_metadata(source.metadata))))


def test_metadata_that_do_not_come_back_are_found(path, monkeypatch):
    def forgetful(metadata):
        return metadata_to_row(metadata) | {"rate_hz": None}

    monkeypatch.setattr("cinefeed.testing.sources.metadata_to_row", forgetful)
    with pytest.raises(AssertionError, match=r"metadata.rate_hz is 25.0, and nan after storing it"):
        check_source(open_video(path))
    with pytest.raises(AssertionError, match="have no frames"):
        stored_metadata(replace(probe(path), times=FrameTimes(0.0, 0.04, 0), ticks=None))


def test_metadata_of_every_shape_come_back():
    times, ticks = FrameTimes(0.0, float("nan"), 3), None
    metadata = VideoMetadata(height=2, width=2, channels=1, bits=8, times=times, ticks=ticks)
    for changes in (
        {},
        {"times": FrameTimes(0.0, 0.1, 3)},
        {"times": FrameTimes(2.5, 0.1, 3)},
        {"times": FrameTimes(0.0, 0.1, 3, np.array([0.0, 0.1, 0.4])), "error": "breaks after 3 of 4 frames: cut off"},
    ):
        stored = stored_metadata(replace(metadata, **changes))
        assert (stored.times.count, stored.error) == (3, changes.get("error"))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"read": begins_badly}, "when it is the first after opening again"),
        ({"close": never_closes}, "the end of `with` does not close"),
    ],
)
def test_what_is_wrong_after_opening_again_is_found(path, wrong, message):
    with pytest.raises(AssertionError, match=message):
        check_source(open_video(path), reopen=lambda: Faulty(open_video(path), **wrong))


def test_another_file_behind_the_same_path_is_found(path, tmp_path):
    other = write_video(tmp_path / "two.mp4", numbered_frames(30, height=32, width=32, first=500))
    with pytest.raises(AssertionError, match="after opening again"):
        check_source(open_video(path), reopen=lambda: open_video(other))


def test_state_that_threads_share_is_found(path):
    shared = []

    def confused(source):
        def read(numbers):
            shared[:] = source.read(numbers)
            time.sleep(0.002)  # long enough for another thread to put its own there
            return np.array(list(shared))

        return read

    with pytest.raises(AssertionError, match="if 4 threads read, each from its own source"):
        check_source(open_video(path), reopen=lambda: Faulty(open_video(path), read=confused))


def test_a_long_source_is_checked_in_part(tmp_path):
    """200 frames in a row, and never more than 128 MB of them."""
    np.save(tmp_path / "long.npy", np.arange(900, dtype=np.uint16)[:, None, None] + np.zeros((1, 2, 2), np.uint16))
    requests = []

    def noted(source):
        def read(numbers):
            requests.extend(numbers)
            return source.read(numbers)

        return read

    check_source(Faulty(open_video(tmp_path / "long.npy"), read=noted), seed=4)
    read = {int(number) for number in requests} - {-1, 0, 900, 905}
    assert max(read) - min(read) < 200
