"""The public checks pass what is right, and find what is wrong."""

import numpy as np
import pytest

from cinefeed import open_source
from cinefeed.sources.base import Planes
from cinefeed.testing import check_source, numbered_frames, read_number, write_video


def test_numbers_survive_coding_and_resizing(tmp_path):
    frames = numbered_frames(40, height=48, width=80, first=40000)
    path = write_video(tmp_path / "hard.mp4", frames, options={"crf": "40"})
    with open_source(path) as source:
        read = source.read(range(40))
    assert [read_number(frame) for frame in read] == list(range(40000, 40040))
    assert [read_number(frame[::2, ::2]) for frame in read] == list(range(40000, 40040))
    assert read_number(numbered_frames(1)[0]) == 0
    assert read_number(numbered_frames(1, first=65535)[0]) == 65535
    assert read_number(numbered_frames(1, first=9)[0, :, :, 0].astype(np.uint16) * 257) == 9


def test_the_same_frames_give_the_same_file(tmp_path):
    for codec in ("h264", "mpeg4"):
        both = [write_video(tmp_path / f"{n}.mp4", numbered_frames(20), codec=codec) for n in "ab"]
        assert both[0].read_bytes() == both[1].read_bytes()


class Faulty:
    """A source that does one thing wrong."""

    def __init__(self, source, **wrong):
        self._source, self._wrong = source, wrong

    def __getattr__(self, name):
        return self._wrong[name](self._source) if name in self._wrong else getattr(self._source, name)

    def __len__(self):
        return self._wrong["length"] if "length" in self._wrong else len(self._source)


def off_by_one_backwards(source):
    return lambda numbers: source.read([max(n - 1, 0) for n in numbers] if list(numbers)[-1:] < [5] else numbers)


def sorts_its_answers(source):
    return lambda numbers: source.read(sorted(numbers))


def returns_fewer(source):
    return lambda numbers: source.read(list(dict.fromkeys(numbers)))


def wraps_around(source):
    return lambda numbers: source.read([n % len(source) for n in numbers])


def never_closes(source):
    return lambda: None


def hands_over_one_plane(source):
    def planes(numbers):
        found = source.planes(numbers)
        return Planes([frame[:1] for frame in found.frames], found.colour)

    return planes


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"read": off_by_one_backwards}, "differs from the one read in order"),
        ({"read": sorts_its_answers}, "differs from the one read in order"),
        ({"read": returns_fewer}, "frames asked"),
        ({"read": wraps_around}, "does not raise SourceError"),
        ({"close": never_closes}, "a closed source does not raise"),
        ({"planes": hands_over_one_plane}, "planes, not 3"),
        ({"length": 29}, "len"),
    ],
)
def test_what_is_wrong_is_found(tmp_path, wrong, message):
    path = write_video(tmp_path / "good.mp4", numbered_frames(30, height=32, width=32))
    with open_source(path) as source, pytest.raises(AssertionError, match=message):
        check_source(Faulty(source, **wrong))


def test_another_file_behind_the_same_path_is_found(tmp_path):
    path = write_video(tmp_path / "one.mp4", numbered_frames(30, height=32, width=32))
    other = write_video(tmp_path / "two.mp4", numbered_frames(30, height=32, width=32, first=500))
    with pytest.raises(AssertionError, match="after opening again"):
        check_source(open_source(path), reopen=lambda: open_source(other))
