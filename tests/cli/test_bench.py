"""`cinefeed bench` over the small .npy videos of the fixtures: figures are looked at for sense, not for size."""

import os
from dataclasses import replace

import pytest

import cinefeed as cf
from cinefeed.cli.bench import backend_names, others_note, verdict, worker_counts
from cinefeed.core.cores import usable_cores
from cinefeed.core.errors import SettingError
from cinefeed.feed.stats import Stats
from cinefeed.feed.throughput import Measured, measure_feed, measure_grid, with_gains

SMALL = "--frame 16x16x1 --frames 3 --batch-size 4".split()
needs_processes = pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="worker processes need Linux")


def feed_of(manifest, **settings):
    table = cf.Manifest.read(manifest)
    frame = cf.Frame(height=16, width=16, channels=1)
    return cf.Feed(table, target=None, clip=cf.Clip(frames=3), frame=frame, **{"batch_size": 4, **settings})


@needs_processes
def test_a_grid_of_workers_and_backends(cinefeed, manifest):
    grid = ["--workers", "0,1,2", "--backend", "thread,process"]
    done = cinefeed("bench", manifest, *SMALL, *grid, "--seconds", 0.1, "--json")
    assert done.code == 0, done.err
    runs = done.json["runs"]
    assert [(run["workers"], run["backend"]) for run in runs] == [
        (0, "thread"),
        (1, "thread"),
        (1, "process"),
        (2, "thread"),
        (2, "process"),
    ]
    for run in runs:
        assert run["clips"] > 0 and run["clips_per_second"] > 0
        assert run["megabytes_per_second"] == pytest.approx(run["clips_per_second"] * 3 * 16 * 16 / 1e6)
        assert min(run["seconds_a_clip"].values()) > 0
    assert [run["gain"] for run in runs[:2]] == [None, 1]
    for run in runs[2:]:
        assert run["gain"] == pytest.approx(run["clips_per_second"] / runs[1]["clips_per_second"])
    assert (done.json["rows"], done.json["clip"]) == (12, [3, 16, 16, 1])
    fastest = max(runs, key=lambda run: run["clips_per_second"])
    assert done.json["best"] == {"workers": fastest["workers"], "backend": fastest["backend"]}


def test_a_table_for_people(cinefeed, manifest):
    done = cinefeed("bench", manifest, *SMALL, "--workers", "0,2", "--backend", "thread", "--seconds", 0.1)
    assert done.code == 0, done.err
    lines = [line.split() for line in done.out.splitlines()]
    assert ["workers", "clips/s", "MB/s", "read", "decode", "transform", "assemble", "idle", "gain"] in lines
    assert done.out.startswith("12 samples, clips of 3 x 16 x 16 x 1 in batches of 4, ")
    assert any(line[:2] == ["the", "caller"] for line in lines)
    assert any(line[:2] == ["2", "threads"] for line in lines)
    assert any(line.startswith("fastest: ") for line in done.out.splitlines())


def test_it_feeds_what_train_would(cinefeed, manifest, tmp_path):
    config = tmp_path / "bench.toml"
    config.write_text(f'[data]\nmanifest = "{manifest}"\n[frame]\nheight = 8\nwidth = 8\n[feed]\nworkers = 3\n')
    words = ["--where", "kind=a", "--workers", "1", "--backend", "thread", "--seconds", 0.1, "--json"]
    done = cinefeed("bench", "--config", config, "--frames", 2, *words)
    assert done.code == 0, done.err
    assert (done.json["rows"], done.json["clip"]) == (6, [2, 8, 8, 3])
    assert [run["workers"] for run in done.json["runs"]] == [1]
    split = ["--target", "kind", "--group", "patient", "--val", 0.2, "--test", 0.3]
    done = cinefeed("bench", manifest, *SMALL, *split, *words[2:])
    assert done.code == 0, done.err
    assert 0 < done.json["rows"] < 12


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--workers", "two"], "'two' must be whole numbers"),
        (["--workers", "1,,2"], "whole numbers"),
        (["--workers", "-1"], "whole numbers"),
        (["--backend", "proces"], "did you mean 'process'?"),
        (["--seconds", 0], "--seconds 0 must be more than 0"),
        (["--epochs", 0], "--epochs 0 must be at least 1"),
        (["--frame", "16"], "HEIGHTxWIDTHxCHANNELS"),
    ],
)
def test_wrong_use_exits_with_2(cinefeed, manifest, words, message):
    done = cinefeed("bench", manifest, "--workers", "0", *words)
    assert (done.code, done.out) == (2, "")
    assert message in done.err


def test_a_file_that_breaks_exits_with_1_and_its_name(cinefeed, manifest, videos):
    (videos / "p0" / "v0.npy").write_bytes(b"\x93NUMPY is cut off")
    done = cinefeed("bench", manifest, *SMALL, "--workers", "0")
    assert (done.code, done.out) == (1, "")
    assert "v0.npy" in done.err


def test_epochs_are_whole_ones(manifest):
    assert measure_feed(feed_of(manifest, workers=0), epochs=3).clips == 3 * 12
    stats = measure_feed(feed_of(manifest, workers=2), epochs=1)
    assert (stats.clips, stats.batches, stats.workers) == (12, 3, 2)
    assert stats.bytes == 12 * 3 * 16 * 16


def test_the_start_is_not_counted(manifest):
    feed = feed_of(manifest, workers=1)
    stats = measure_feed(feed, seconds=0.05)
    assert 0 < stats.clips < feed.stats().clips
    assert 0 < stats.elapsed_seconds < feed.stats().elapsed_seconds


def test_a_feed_without_batches_is_refused(manifest):
    with pytest.raises(SettingError, match="no batch"):
        measure_feed(feed_of(manifest, workers=0, batch_size=100, drop_last=True))


def test_no_backend_without_workers_and_progress_is_told(manifest):
    requests, ticks = [], []

    def make(count, kind):
        requests.append((count, kind))
        return feed_of(manifest, workers=count)

    runs = measure_grid(
        make,
        workers=[1, 0, 1],
        backends=["thread", "process"],
        epochs=1,
        progress=lambda done, total: ticks.append((done, total)),
    )
    assert requests == [(0, "thread"), (1, "thread"), (1, "process")]
    assert ticks == [(0, 3), (1, 3), (2, 3)]
    assert [run.workers for run in runs] == [0, 1, 1]


def test_the_gain_is_over_one_worker():
    def run(workers, backend, clips):
        return Measured(workers=workers, backend=backend, stats=Stats(clips=clips, elapsed_seconds=1.0))

    runs = with_gains([run(0, "thread", 9), run(1, "thread", 10), run(2, "thread", 19), run(2, "process", 20)])
    assert [each.gain for each in runs] == [None, 1.0, 1.9, 2.0]
    assert [each.gain for each in with_gains(runs[2:])] == [1.9, 2.0]  # without such a run they are left as they are


def test_other_programs_are_reported():
    def run(other):
        stats = Stats(elapsed_seconds=10.0, available_cpu_seconds=20.0, other_cpu_seconds=other)
        return Measured(workers=1, backend="thread", stats=stats)

    assert others_note([run(1.0), run(2.0)], cores=2) == ""
    assert others_note([replace(run(9.0), stats=Stats(elapsed_seconds=10.0))], cores=2) == ""  # not measured here
    assert others_note([run(1.0), run(14.0)], cores=2).startswith("other programs used 0.1 to 1.4 of 2 cores meanwhile")
    assert " of 3 cores " in others_note([run(14.0)], cores=3), "as at the top, not that of the CPU time"


def test_the_verdict_names_the_setting_and_where_its_time_goes():
    stats = Stats(clips=100, read_seconds=1, decode_seconds=8, transform_seconds=1, elapsed_seconds=10, workers=2)
    best = Measured(workers=2, backend="process", stats=stats, gain=1.9)
    fastest, work = verdict(best).split("; ")
    assert fastest == "fastest: 2 processes with 10 clips/s, 1.9 times one worker"
    assert work == "decode takes 80 % of the work, workers idle 50 %"
    assert verdict(replace(best, workers=1, gain=1.0)).startswith("fastest: 1 process with 10 clips/s; decode")


def test_what_is_measured_where_nothing_is_said(monkeypatch):
    assert worker_counts(None) == sorted({0, 1, usable_cores()})
    monkeypatch.setattr("os.memfd_create", len, raising=False)
    assert backend_names(None) == ["thread", "process"]
    monkeypatch.delattr("os.memfd_create")
    assert backend_names(None) == ["thread"]
    with pytest.raises(SettingError, match="need Linux"):
        backend_names("thread,process")
