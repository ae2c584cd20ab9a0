import json
import threading

from cinefeed.feed.stats import Meter, Stats


def test_sums_from_many_threads():
    meter = Meter()

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


def test_stats_are_json():
    assert json.loads(json.dumps(Stats(clips=3, elapsed_seconds=2).as_dict()))["clips_per_second"] == 1.5
