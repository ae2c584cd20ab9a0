"""What FFmpeg says while a scan decodes: heard by the scan alone, and everything as it was afterwards."""

import logging
from threading import Barrier, Thread

import av
import pytest

from cinefeed.video.ffmpeg.messages import capture_errors, reports_substitution


@pytest.fixture(autouse=True)
def as_before():
    yield
    av.logging.set_level(None)
    av.logging.set_skip_repeated(True)


def state():
    return av.logging.get_level(), av.logging.get_skip_repeated(), logging.getLogger("libav").level


def say(text):
    with av.logging.Capture() as messages:
        for _ in range(2):
            av.logging.log(av.logging.ERROR, "h264", text)
    return messages


def test_messages_are_heard_each_time_and_only_within():
    before = state()
    assert say("Missing reference picture, default is 3") == []
    with capture_errors():
        assert len(say("Missing reference picture, default is 3")) == 2
        with capture_errors():
            pass
        assert len(say("co located POCs unavailable")) == 2
    assert state() == before


def test_scans_in_threads_leave_all_as_it_was():
    before, barrier, counts = state(), Barrier(4), []

    def scan():
        for _ in range(50):
            barrier.wait(10)
            with capture_errors():
                counts.append(len(say("unref short failure")))

    threads = [Thread(target=scan) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert counts == [2] * 200
    assert state() == before


@pytest.mark.parametrize("level", [av.logging.FATAL, av.logging.WARNING])
def test_a_level_that_the_user_has_set_is_set_again(level):
    av.logging.set_level(level)
    before = state()
    with capture_errors():
        assert len(say("unref short failure")) == 2
        assert av.logging.get_level() == max(level, av.logging.ERROR)
    assert state() == before


def test_others_messages_are_not_shown(caplog):
    with capture_errors():
        av.logging.log(av.logging.ERROR, "h264", "of a video that is fed meanwhile")
    assert caplog.text == ""


@pytest.mark.parametrize(
    ("text", "is_made_up"),
    [
        ("reference picture missing during reorder", True),
        ("mmco: unref short failure", True),
        ("A non-intra slice in an IDR NAL unit.", False),  # OpenCV's box.mp4, which plays
    ],
)
def test_which_messages_tell_of_a_picture_in_place_of_another(text, is_made_up):
    assert reports_substitution([(av.logging.ERROR, "h264", text + "\n")]) is is_made_up
