import json
import threading
from dataclasses import replace

import pytest

from cinefeed.feed.stats import Stats, StatsRecorder


def test_sums_from_many_threads():
    meter = StatsRecorder()

    def work():
        for _ in range(1000):
            meter.add(clips=1, decode_seconds=0.5)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    stats = meter.stats(workers=4)
    assert (stats.clips, stats.decode_seconds, stats.workers) == (4000, 2000.0, 4)


def test_verdict_names_the_side_that_waits():
    assert "nothing" in Stats().verdict
    feed = Stats(read_seconds=1, decode_seconds=1, transform_seconds=6, wait_seconds=3, elapsed_seconds=4, workers=2)
    assert (
        feed.verdict == "the feed is the bottleneck: the model waits 75 % of the time, transform takes 75 % of the feed"
    )
    model = Stats(decode_seconds=2, wait_seconds=0.1, elapsed_seconds=10, workers=2)
    assert model.verdict == "the model is the bottleneck: workers idle 90 % of the time"
    remote = Stats(fetch_seconds=9, read_seconds=1, wait_seconds=3, elapsed_seconds=5, fetched_bytes=10**9)
    assert remote.verdict == (
        "the network is the bottleneck: the model waits 60 % of the time, "
        "fetch takes 90 % of the feed at 200 MB a second"
    )
    assert remote.line().endswith("the network is the bottleneck")


def test_the_line_says_the_same_in_a_few_words():
    assert Stats().line() == "nothing has been fed yet"
    stats = Stats(clips=205, decode_seconds=8.1, read_seconds=1.9, wait_seconds=0.6, elapsed_seconds=5, workers=2)
    assert stats.line() == "41 clips/s, waits 12 %, decode 81 %: the feed is the bottleneck"
    assert "the feed is the bottleneck" in stats.verdict
    stats = Stats(clips=3695, transform_seconds=3.7, wait_seconds=0.1, elapsed_seconds=5, workers=2)
    assert stats.line() == "739 clips/s, waits 2 %, workers idle 63 %: the model is the bottleneck"
    assert stats.verdict == "the model is the bottleneck: workers idle 63 % of the time"
    assert Stats(clips=3, decode_seconds=1, wait_seconds=9, elapsed_seconds=10).line().startswith("0.3 clips/s, ")


def test_shares_and_seconds_a_clip():
    stats = Stats(
        clips=10,
        read_seconds=1,
        decode_seconds=4,
        transform_seconds=2,
        wait_seconds=3,
        elapsed_seconds=10,
        workers=2,
    )
    assert stats.seconds_a_clip == {"read": 0.1, "decode": 0.4, "transform": 0.2}
    assert (stats.wait_share, stats.idle_share) == (0.3, 0.65)
    assembled = replace(stats, assemble_seconds=5.0)
    assert assembled.seconds_a_clip["assemble"] == 0.5
    assert assembled.idle_share == stats.idle_share  # it is the consumer's work
    assert replace(stats, workers=0).idle_share == pytest.approx(0.3)
    assert replace(stats, decode_seconds=100).idle_share == 0  # never negative
    assert (Stats().wait_share, Stats().idle_share, Stats().seconds_a_clip["decode"]) == (0, 0, 0)


def test_a_stretch_of_time_is_the_difference_of_two():
    before = Stats(clips=4, decode_seconds=1.0, elapsed_seconds=2.0, workers=2, skipped=("row 1: gone",))
    now = Stats(clips=9, decode_seconds=3.0, elapsed_seconds=4.5, workers=2, skipped=("row 1: gone", "row 7: cut"))
    stretch = now.since(before)
    assert stretch == Stats(clips=5, decode_seconds=2.0, elapsed_seconds=2.5, workers=2, skipped=("row 7: cut",))
    assert stretch.clips_per_second == 2


def test_stats_are_json():
    assert json.loads(json.dumps(Stats(clips=3, elapsed_seconds=2).as_dict()))["clips_per_second"] == 1.5
    as_dict = Stats(clips=3, decode_seconds=1.5, wait_seconds=1, elapsed_seconds=2, workers=1).as_dict()
    assert (as_dict["wait_share"], as_dict["idle_share"], as_dict["seconds_a_clip"]["decode"]) == (0.5, 0.25, 0.5)


def busy(**changes):
    """Stats of a training on two full cores, one of which other programs have."""
    figures = {
        "decode_seconds": 2.0,
        "elapsed_seconds": 10.0,
        "workers": 2,
        "available_cpu_seconds": 20.0,
        "own_cpu_seconds": 9.5,
        "other_cpu_seconds": 10.0,
        "delayed_seconds": 4.0,
    }
    return Stats(**figures | changes)


def test_a_busy_machine_is_named_before_feed_and_model():
    assert busy().verdict == "the machine is the bottleneck: other programs take 50 % of its cores"
    assert busy(wait_seconds=5.0, delayed_seconds=0.0).machine_is_busy  # the feed's workers have no core
    assert busy(clips=20).line() == "2 clips/s, waits 0 %, other programs 50 %: the machine is the bottleneck"


@pytest.mark.parametrize(
    "changes",
    [
        {"other_cpu_seconds": 1.0, "own_cpu_seconds": 18.5},  # the program fills the cores itself
        {"own_cpu_seconds": 5.0},  # a quarter of the cores is free
        {"delayed_seconds": 0.2},  # a model on a GPU that has its batches in time
        {"available_cpu_seconds": 0.0},  # not measured
    ],
)
def test_others_are_not_blamed_for_what_they_do_not_hold_up(changes):
    assert busy(**changes).verdict.startswith("the model is the bottleneck")
