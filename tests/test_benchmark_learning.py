"""The learning benchmark: its data are what it says, so that who lacks a part of a clip cannot find the answer."""

import doctest
import json
from collections import Counter
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest

import cinefeed as cf


@pytest.fixture(autouse=True)
def root(monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).parents[1])


def videos(manifest, *, target, **settings):
    """Return the clips, in the order of the rows, and their answers."""
    data = import_module("benchmarks.learning.data")
    feed = cf.Feed(
        manifest,
        target=target,
        clip=cf.Clip(frames=data.FRAMES, position="start"),
        frame=cf.Frame(height=data.SIDE, width=data.SIDE, channels=1),
        workers=0,
        **settings,
    ).evaluation(manifest)
    batches = [(batch.inputs(padded=False)[feed.spec.clip_names[0]].copy(), batch.targets.copy()) for batch in feed]
    return np.concatenate([clips for clips, _ in batches]), np.concatenate([targets for _, targets in batches])


def prints(clips):
    return Counter(clip.tobytes() for clip in clips)


@pytest.mark.parametrize("name", ["tables", "tasks", "recipes", "first_runs"])
def test_examples_of_the_benchmark_run(name):
    result = doctest.testmod(import_module(f"benchmarks.learning.{name}"))
    assert result.attempted and not result.failed


def test_both_classes_of_the_order_hold_the_same_frames_and_not_the_same_clips():
    from benchmarks.learning.data import order_of_frames

    data = order_of_frames(seed=1, train=40, test=20)
    for part in (data.train, data.test):
        clips, classes = videos(part, target="change")
        frames = [prints(clips[classes == each].reshape(-1, *clips.shape[2:])) for each in (0, 1)]
        assert frames[0] == frames[1]
        assert not prints(clips[classes == 0]) & prints(clips[classes == 1])
        bright = (clips > 90).sum(axis=(2, 3, 4))
        assert ((bright[:, -1] < bright[:, 0]) == classes).all()  # the class can be seen in the order


def test_a_view_alone_has_every_video_under_both_answers_and_both_views_tell():
    from benchmarks.learning.data import two_views

    data = two_views(seed=1, train=40, test=20)
    for part in (data.train, data.test):
        large = []
        for view in ("a", "b"):
            clips, classes = videos(part, target="discs", inputs=cf.Inputs(views=(view,)))
            assert prints(clips[classes == 0]) == prints(clips[classes == 1])
            large.append((clips > 90).sum(axis=(1, 2, 3, 4)) / clips.shape[1] > 84)  # pixels of a radius of 5.2
        assert ((large[0] != large[1]) == classes).all()
        assert sorted(Counter(zip(*large, strict=True)).values()) == [len(part) // 4] * 4


def test_a_clip_alone_has_several_widths_and_with_the_covariate_one():
    from benchmarks.learning.data import covariate

    data = covariate(seed=1, train=40, test=200)
    clips, widths = videos(data.test, target="width_mm")
    assert set(prints(clips).values()) == {4}
    sizes = np.array(data.test.column("mm_per_pixel"))
    across = 2 * np.sqrt((clips > 90).sum(axis=(1, 2, 3, 4)) / clips.shape[1] / np.pi)
    assert across * sizes == pytest.approx(widths, rel=0.07)
    of_video = widths.reshape(-1, 4).mean(axis=1).repeat(4)
    unexplained = np.sum((widths - of_video) ** 2) / np.sum((widths - widths.mean()) ** 2)
    assert data.baselines["best from the clip alone"] == pytest.approx(1 - unexplained, abs=1e-4)
    assert 0.2 < data.baselines["best from the clip alone"] < 0.6
    assert 0.4 < data.baselines["linear fit of the covariate"] < 0.8


def test_the_mean_frames_are_those_of_the_clips():
    from benchmarks.learning.data import clips_alone

    data = clips_alone(seed=1, train=30, test=10)
    trained, tested = (videos(part, target=None)[0].astype(np.float64) for part in (data.train, data.test))
    assert data.baselines == pytest.approx(
        {
            "mean frame of the training part": np.mean((tested - trained.mean(axis=(0, 1))) ** 2),
            "mean frame of the clip": np.mean(tested.var(axis=1)),
        }
    )


def test_data_are_the_same_each_time_and_others_by_seed_and_part():
    from benchmarks.learning.data import order_of_frames

    first, again, other = (order_of_frames(seed=seed, train=8, test=8) for seed in (1, 1, 2))
    counts = [prints(videos(part, target="change")[0]) for part in (first.train, first.test, again.train, other.train)]
    assert counts[0] == counts[2]
    assert not counts[0] & counts[1] and not counts[0] & counts[3]


def test_what_is_done_is_not_done_again_and_what_misses_is_told(tmp_path, monkeypatch):
    main, learn = import_module("benchmarks.learning.__main__"), import_module("benchmarks.learning.learn")
    tables, task = (
        import_module("benchmarks.learning.tables"),
        import_module("benchmarks.learning.tasks").TASKS["order"],
    )
    monkeypatch.setenv("KERAS_BACKEND", "torch")
    trained = []

    def train(data, *, task, trial, seed):
        trained.append(trial.name)
        return {"accuracy": 0.5, "parameters": 1234}

    monkeypatch.setattr(learn, "train", train)
    for _ in range(2):
        main.run_missing("order", seed=3, results=tmp_path / "results.jsonl")
    assert trained == [each.name for each in task.trials]
    records = [json.loads(line) for line in (tmp_path / "results.jsonl").read_text().splitlines()]
    messages = tables.failed(records)
    assert len(messages) == 2 and "cnn_rnn, gru, seed 3: accuracy 0.500, must be at least 0.9" in messages[0]
    text = tables.tables(records)
    assert '| cnn_rnn, rnn="none" | 0.500 | at most 0.55 | yes | 1,234 |' in text
    assert text.count("**no**") == 2 and "| guessing | 0.500 |" in text
    others = [each | {"settings": "of another day"} for each in records]
    assert tables.tables(others) == "" and not tables.failed(others)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["two_views", "covariate", "order", "clips"])
def test_networks_reach_what_they_must_and_no_more(name):
    from benchmarks.learning.learn import train
    from benchmarks.learning.tasks import TASKS

    task = TASKS[name]
    data = task.make(seed=5)
    for trial in task.trials:
        score = train(data, task=task, trial=trial, seed=5)[task.metric]
        assert trial.holds(score), f"{trial.name}: {score}, must be {trial.must}"


@pytest.mark.slow
def test_a_training_gives_the_same_result_again():
    from benchmarks.learning.learn import train
    from benchmarks.learning.tasks import TASKS

    task = TASKS["covariate"]
    data = task.make(seed=5, train=80, test=40)
    first, again = (train(data, task=task, trial=task.trials[1], seed=5) for _ in range(2))
    assert first == again


def test_published_figures_on_real_videos_follow_from_the_committed_records():
    from benchmarks.learning.real import sections

    page = (Path(__file__).parents[1] / "docs" / "learning_results.md").read_text(encoding="utf-8")
    assert sections() in page


def test_the_paired_interval_covers_clips_and_seeds(tmp_path):
    from benchmarks.learning.lips_words import compare

    rng = np.random.default_rng(0)
    word = rng.integers(0, 2, 400)
    right = {"network_1": 0.8, "network_2": 0.6, "svc": 0.5}  # accuracies
    columns = {name: np.where(rng.random(400) < share, word, 1 - word) for name, share in right.items()}
    columns["together"] = columns["network_1"]
    lines = ["id,word,fold," + ",".join(columns)]
    for row in range(400):
        lines.append(f"{row},{word[row]},1," + ",".join(str(each[row]) for each in columns.values()))
    (tmp_path / "p.csv").write_text("\n".join(lines) + "\n")
    result = compare(tmp_path / "p.csv")
    exact = {name: float((each == word).mean()) for name, each in columns.items()}
    mean = (exact["network_1"] + exact["network_2"]) / 2
    assert result["seeds"] == {"1": exact["network_1"], "2": exact["network_2"]}
    assert result["difference"][0] == pytest.approx(mean - exact["svc"])
    assert result["together_difference"][0] == pytest.approx(exact["network_1"] - exact["svc"])
    _, low, high = result["difference"]
    assert low < exact["network_2"] - exact["svc"] < exact["network_1"] - exact["svc"] < high  # either seed alone
