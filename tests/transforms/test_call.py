"""Any callable as a transform: seeded by the clip's address, alike for any workers, and refused where it cannot be."""

import pickle
import random
import threading
from functools import partial

import callables
import numpy as np
import pytest
import torch

import cinefeed as cf
from cinefeed.core.errors import FeedError, SettingError
from cinefeed.testing import check_feed, check_transform
from cinefeed.transforms import Call, Compose, OneOf
from cinefeed.transforms.call import callable_name

FRAME = cf.Frame(height=16, width=16, channels=1)
RANDOM = {
    "torch": callables.Jitter(),
    "torch, by shape": callables.Noisy(),
    "rng of the feed": callables.shift_by_rng,
    "global of numpy": callables.of_numpy,
    "global of python": callables.of_python,
    "global of torch": callables.with_dropout,
}


def make(manifest, *transforms, **changes):
    settings = {"clip": cf.Clip(frames=4), "frame": FRAME, "batch_size": 4, "seed": 7} | changes
    return cf.Feed(manifest, target="age", transforms=transforms, **settings)


@pytest.fixture
def manifest(tmp_path):
    """Videos of noise."""
    for row in range(8):
        np.save(tmp_path / f"{row}.npy", np.random.default_rng(row).integers(0, 255, (6, 16, 16), np.uint8))
    return cf.Manifest.from_table(
        {"path": [f"{row}.npy" for row in range(8)], "age": [20.0 + row for row in range(8)]}, root=tmp_path
    )


def clips_of(feed, count=2):
    clips = [batch.clips.copy() for _ in range(count) for batch in feed]
    feed.close()
    return clips


def same(one, other):
    return len(one) == len(other) and all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("kind", RANDOM)
def test_the_address_decides_whoever_makes_the_clip(manifest, kind):
    make_one = partial(make, manifest, RANDOM[kind])
    plain = clips_of(make_one(workers=0))
    assert not same(plain[:2], plain[2:]), "an epoch is like the one before"
    again = make_one(workers=0)
    assert np.array_equal(again.batch(1, epoch=1).clips, plain[3]) and np.array_equal(again.batch(0).clips, plain[0])
    if not kind.startswith("global"):
        feed = make_one(workers=cf.Workers(count=1, backend="process"))
        assert same(clips_of(feed), plain) and feed.choice.backend == "process"
    feed = make_one(workers=2)
    assert same(clips_of(feed), plain)
    assert feed.choice.backend == ("process" if kind.startswith("global") else "thread")


def test_generators_of_the_program_stay_as_they_were(manifest):
    feed = make(manifest, *RANDOM.values(), workers=0)
    for seed in (random.seed, np.random.seed, torch.manual_seed):
        seed(5)
    expected = random.random(), np.random.rand(), torch.rand(1).item()  # noqa: NPY002
    for seed in (random.seed, np.random.seed, torch.manual_seed):
        seed(5)
    feed.batch(0)
    assert (random.random(), np.random.rand(), torch.rand(1).item()) == expected  # noqa: NPY002


def test_threads_change_nothing_while_the_program_draws(manifest):
    plain = clips_of(make(manifest, callables.Jitter(), callables.Noisy(), workers=0), 4)
    ended = threading.Event()

    def draw():
        while not ended.is_set():
            torch.rand(3)

    thread = threading.Thread(target=draw)
    thread.start()
    try:
        assert same(clips_of(make(manifest, callables.Jitter(), callables.Noisy(), workers=2), 4), plain)
    finally:
        ended.set()
        thread.join()


def test_an_evaluation_keeps_what_is_not_random(manifest):
    feed = make(manifest, callables.Jitter(), callables.scaled, cf.Normalize(mode="range", high=1))
    assert feed.spec.dtype == np.float32
    val = feed.evaluation(manifest)
    assert [repr(each) for each in val.settings.transforms] == [repr(each) for each in feed.settings.transforms[1:]]
    evaluation = make(manifest, Call(function=callables.shift_by_rng, random=False)).evaluation(manifest)
    assert len(evaluation.settings.transforms) == 1 and np.array_equal(
        evaluation.batch(0).clips, evaluation.batch(0, epoch=3).clips
    )
    dropped = make(manifest, Call(function=callables.scaled, random=True)).evaluation(manifest)
    assert dropped.settings.transforms == () and dropped.spec.dtype == np.uint8


def test_what_is_said_of_it(manifest):
    feed = make(manifest, callables.Jitter(), cf.Rotate(degrees=5), callables.scaled)
    assert feed.spec.callables == ("Jitter(brightness=0.5, p=0.5)", "callables.scaled")
    assert "changed by callables (Jitter(brightness=0.5, p=0.5), callables.scaled)" in feed.summary()
    lines = Compose(feed.settings.transforms, frame=FRAME).explain()
    assert "Call(function=Jitter(brightness=0.5, p=0.5)): a callable, seeded by the address of each clip" in lines
    assert "Call(function=callables.scaled): a callable, the same for every clip" in lines
    state = feed.state()
    make(manifest, callables.Jitter(), cf.Rotate(degrees=5), callables.scaled).restore(state)
    with pytest.raises(FeedError, match="transforms"):
        make(manifest, callables.Jitter(brightness=0.1), cf.Rotate(degrees=5), callables.scaled).restore(state)
    parameters = make(manifest, callables.Jitter(), return_parameters=True, workers=0).batch(0).parameters[0]
    assert isinstance(parameters["transforms"][0]["seed"], int)


def test_names_are_the_same_in_every_process():
    one, other = (lambda clip: clip), (lambda clip: clip[::-1])
    assert callable_name(one) != callable_name(other) and "0x" not in callable_name(one)

    def times(factor):
        return lambda clip: clip * factor

    assert callable_name(times(2)) != callable_name(times(3))
    assert callable_name(partial(callables.shift_by_rng, rng=3)) == "partial(callables.shift_by_rng, rng=3)"
    assert pickle.loads(pickle.dumps(Call(function=callables.shift_by_rng))) == Call(function=callables.shift_by_rng)


@pytest.mark.parametrize("kind", RANDOM)
def test_conformance(manifest, kind):
    check_feed(make(manifest, RANDOM[kind], workers=0))
    if kind != "global of torch" and kind != "torch, by shape":  # these make one type of all
        check_transform(Call(function=RANDOM[kind], random=True))


def test_layouts(manifest):
    shapes = []

    def look(video):
        shapes.append(tuple(video.shape))
        return video

    wide = cf.Frame(height=16, width=20, channels=3)
    for layout in ("TCHW", "CTHW", "THWC"):
        Compose([Call(function=look, layout=layout)], frame=wide, frames=5)
    assert [*dict.fromkeys(shapes)] == [(5, 3, 16, 20), (3, 5, 16, 20), (5, 16, 20, 3)]


def test_a_choice_may_hold_callables(manifest):
    choice = OneOf(transforms=(Call(function=callables.Jitter()), Call(function=callables.shift_by_rng)))
    feed = make(manifest, choice, workers=2)
    assert same(clips_of(feed), clips_of(make(manifest, choice, workers=0))) and feed.choice.backend == "thread"


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (callables.of_its_own, "two different clips of the same one with the same seed.*a parameter `rng`"),
        (lambda clip: clip[:, :8], r"made \(4, 8, 16, 1\) of a clip of \(4, 16, 16, 1\).*cf.Frame sets the size"),
        (lambda clip: clip.mean(), r"made \(\) of a clip"),
        (lambda clip: clip.astype(np.float64), "made float64 of a clip of uint8, where uint8, uint16 or float32"),
        (lambda clip: clip.unsqueeze(0), r"failed on a clip of noise, a NumPy array \(4, 16, 16, 1\) .*AttributeError"),
        (torch.nn.Conv2d(3, 3, 1), r"a torch tensor \(4, 1, 16, 16\) of uint8 in the order TCHW: RuntimeError"),
        ("rotate", r"transforms\[0\] is 'rotate'.*or a callable that takes a clip"),
        (callables.Jitter, r"is the class Jitter; give an instance"),
    ],
)
def test_what_cannot_be_a_transform(manifest, function, message):
    with pytest.raises(SettingError, match=message):
        make(manifest, function)


def test_wrong_settings():
    for wrong in ({"function": 3}, {"function": callables.Jitter}, {"layout": "HWC"}, {"random": 1}):
        with pytest.raises(SettingError, match="Call"):
            Call(**{"function": callables.shift_by_rng, **wrong})


def test_what_no_process_can_import(manifest):
    """A lambda is made by threads, unless it draws from global generators: then it is refused, with what to do."""
    feed = make(manifest, lambda clip: clip // 2, workers=cf.Workers(count=1, backend="process"))
    assert len(clips_of(feed, 1)) == 2 and feed.choice.backend == "thread"
    feed = make(manifest, lambda clip: callables.of_numpy(clip), workers=1)
    with pytest.raises(FeedError, match=r"global random generators.*lambda.*a module of its own.*`rng`.*workers=0"):
        next(iter(feed))
    assert len(clips_of(make(manifest, lambda clip: callables.of_numpy(clip), workers=0), 1)) == 2


def test_masks_are_not_left_behind(manifest):
    settings = {"inputs": cf.Inputs(mask="path"), "workers": 0}
    with pytest.raises(SettingError, match=r"masks cannot follow.*keeps_place=True"):
        make(manifest, callables.shift_by_rng, **settings)
    assert make(manifest, Call(function=callables.scaled, keeps_place=True), **settings).batch(0).masks.any()


def test_torchvision(manifest):
    v2 = pytest.importorskip("torchvision.transforms.v2", reason="torchvision is not installed")
    transforms = [v2.RandomHorizontalFlip(), v2.ColorJitter(0.5), v2.ToDtype(torch.float32, scale=True)]
    plain = clips_of(make(manifest, *transforms, v2.Normalize([0.5], [0.5]), workers=0))
    feed = make(manifest, *transforms, v2.Normalize([0.5], [0.5]), workers=2)
    assert same(clips_of(feed), plain) and feed.spec.dtype == np.float32 and feed.choice.backend == "thread"
    assert [type(each.function).__name__ for each in feed.evaluation(manifest).transforms] == ["ToDtype", "Normalize"]
    batch = make(manifest, v2.RandomRotation(30), workers=0).batch(0)
    assert batch.clips.any() and not np.array_equal(batch.clips, make(manifest, workers=0).batch(0).clips)
