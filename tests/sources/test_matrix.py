"""Frame n is frame n: containers x codecs x faults, in four ways, by both decoders, against the `ffmpeg` program."""

import os
import shutil
from pathlib import Path
from typing import NamedTuple

import pytest
from made_matrix import Case, Kitchen, cases, truth
from matrix_reading import answers

# FFmpeg before version 7, as the program may be, puts out HEVC frames without those they need; the FFmpeg in PyAV
# begins at the first key frame.
_BEGIN_LATER = {("hevc", "begins_in_mid_gop"), ("hevc", "bytes_lost_first"), ("hevc", "copied_from_mid_gop")}


class Outcome(NamedTuple):
    """What came of the cases, by their names."""

    right: list[str]
    refused: dict[str, str]
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
    all_of_them = Outcome([], {}, {}, [])
    for case in some:
        try:
            path = kitchen.make(case, folder)
            frames = truth(path)
        except RuntimeError:
            all_of_them.not_made.append(case.name)
            continue
        later = (case.stream.partition("_")[0], case.fault) in _BEGIN_LATER
        wrong, error = answers(path, frames, begins_later=later, cut_off=case.fault == "end_lost")
        if wrong:
            all_of_them.wrong[case.name] = wrong[:3]
        elif error:
            all_of_them.refused[case.name] = error
        else:
            all_of_them.right.append(case.name)
        path.unlink()
    return all_of_them


def test_a_part_of_the_matrix(kitchen, tmp_path):
    done = outcome(kitchen, cases()[::40], tmp_path)
    assert done.wrong == {}
    assert done.refused == {}
    assert len(done.right) >= 40


@pytest.mark.slow
def test_the_whole_matrix(kitchen, tmp_path):
    some = [case for i, case in enumerate(cases()) if case.fault == "plain" or i % 5 == 0]
    done = outcome(kitchen, some, tmp_path)
    print({name: len(value) for name, value in done._asdict().items()}, done.refused, done.not_made)
    assert done.wrong == {}
    assert len(done.right) >= 300
