"""Frame n is frame n: containers x codecs x faults, in four ways, by both decoders, against the `ffmpeg` program."""

import os
import shutil
from pathlib import Path
from typing import NamedTuple

import pytest
from made_matrix import Case, Kitchen, cases, truth
from matrix_reading import answers

from cinefeed.video.ffmpeg import seek_decoder as ladder

# FFmpeg before version 7, as the program may be, puts out HEVC frames without those they need; the FFmpeg in PyAV
# begins at the first key frame.
_BEGIN_LATER = {("hevc", fault) for fault in ("begins_in_mid_gop", "bytes_lost_first", "copied_from_mid_gop")}
# Their decoders raise an error where the frames are missing that the first ones need, and the program goes on.
_REFUSED = {(codec, "copied_from_mid_gop") for codec in ("vp8", "vp9", "av1", "ffv1")}
# Codecs whose last frame, cut off, is an error: the frames before it can be read.
_BROKEN = {(codec, "end_lost") for codec in ("h264", "hevc", "vp8", "vp9", "ffv1")}


class Outcome(NamedTuple):
    """What came of the cases, by their names."""

    right: list[str]
    errors: dict[str, str]  # given in every way; the frames before it, if there are any, are right
    wrong: dict[str, list[str]]
    not_made: list[str]  # or not decoded, by the program


@pytest.fixture(scope="module")
def kitchen(tmp_path_factory):
    if shutil.which("ffmpeg") is None:
        if "ffmpeg" in os.environ.get("CINEFEED_REQUIRE", ""):
            pytest.fail("no ffmpeg program")
        pytest.skip("no ffmpeg program")
    return Kitchen(tmp_path_factory.mktemp("streams"))


def outcome(kitchen: Kitchen, some: list[Case], folder: Path) -> Outcome:
    """Make the files and compare all that is read of them."""
    done = Outcome([], {}, {}, [])
    for case in some:
        try:
            path = kitchen.make(case, folder)
            frames = truth(path)
        except RuntimeError:
            done.not_made.append(case.name)
            continue
        kind = case.stream.partition("_")[0], case.fault
        wrong, error = answers(path, frames, begins_later=kind in _BEGIN_LATER, cut_off=case.fault == "end_lost")
        if wrong or (error and kind not in _REFUSED | _BROKEN):
            done.wrong[case.name] = wrong[:3] or [error]
        elif error:
            done.errors[case.name] = error
        else:
            done.right.append(case.name)
        path.unlink()
    return done


def test_a_part_of_the_matrix(kitchen, tmp_path):
    done = outcome(kitchen, cases()[3::83], tmp_path)
    assert done.wrong == {}
    assert len(done.right) >= 22
    assert len(done.errors) <= 3


@pytest.mark.slow
def test_the_whole_matrix(kitchen, tmp_path):
    done = outcome(kitchen, [case for i, case in enumerate(cases()) if case.fault == "plain" or i % 7 == 0], tmp_path)
    print({name: len(value) for name, value in done._asdict().items()}, done.errors, done.not_made)
    assert done.wrong == {}
    assert len(done.right) >= 400
    assert len(done.errors) <= 20


def test_stamps_that_ffmpeg_guesses_anew_after_a_seek(kitchen, tmp_path):
    """The first cases that showed it; a frame read alone was the one before, or the first of the file."""
    some = [Case("h264", "sound_first", "avi"), Case("h264_open", "plain", "asf"), Case("h264_open", "uneven", "asf")]
    done = outcome(kitchen, some, tmp_path)
    assert (len(done.right), done.wrong) == (3, {})


def test_opening_without_probing_is_found(kitchen, tmp_path, monkeypatch):
    """As once it was, for all containers: packets without a stamp get another one than when they were scanned."""
    some = [case for case in cases() if case.stream == "mpeg1_b" and case.suffix in ("mpg", "vob", "mkv")]
    some = [case for case in some if case.fault.startswith("sound")]
    assert outcome(kitchen, some, tmp_path).wrong == {}
    monkeypatch.setattr(ladder, "states_its_stamps", lambda metadata: True)
    wrong = outcome(kitchen, some, tmp_path).wrong
    assert {Path(name).suffix for name in wrong} == {".mpg", ".vob"}


def test_a_wrong_frame_is_found(kitchen, tmp_path):
    path = kitchen.make(Case("h264_b", "plain", "mkv"), tmp_path)
    frames = truth(path)
    assert answers(path, frames) == ([], "")
    swapped = frames[[*range(47), 0]]
    wrong, _ = answers(path, swapped)
    assert any("frame 47" in fault for fault in wrong)
    wrong, _ = answers(path, frames[:-1])
    assert any("48 frames, of 47" in fault for fault in wrong)
