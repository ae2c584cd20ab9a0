"""Whole epochs, hashed: the same bytes for any workers, backend and prefetch, after a resume, in another process."""

import json
import os
import subprocess
import sys
from dataclasses import asdict
from functools import partial
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from epoch_digests import CATALOGUE, SAMPLERS, TRANSFORMS, as_items, digest, epochs, items, keras_digest, make

import cinefeed as cf
from cinefeed import transforms as ct

CREWS = [("thread", 1, 0), ("thread", 2, 1), ("thread", 4, 4), ("process", 1, 4), ("process", 2, 0), ("process", 4, 1)]
GRID = list(product(("thread", "process"), (1, 2, 4), (0, 1, 4)))


def with_labels(manifest, *, number, name):
    """Return the manifest with its label columns under the names that all feeds here use."""
    table = manifest.table
    for new, old in (("number", number), ("name", name)):
        table = table.append_column(new, table.column(old))
    return cf.Manifest(table, root=manifest.root)


@pytest.fixture
def made(manifest):
    """40 rows of 11 files: five batches."""
    table = manifest.table.take([row % 11 for row in range(40)])
    table = table.set_column(table.schema.get_field_index("id"), "id", [[f"r{row}" for row in range(40)]])
    return with_labels(cf.Manifest.from_table(table, root=manifest.root), number="age", name="sick")


@pytest.fixture(scope="module")
def lips(data):
    scanned = cf.Manifest.scan(data / "lips", labels=data / "lips" / "labels.csv", verify="packets", progress=False)
    return with_labels(scanned.drop_missing("word_start_s"), number="word_start_s", name="word")


@pytest.fixture(scope="module")
def pocus(data):
    scanned = cf.Manifest.scan(data / "pocus", labels=data / "pocus" / "labels.csv", verify="packets", progress=False)
    return with_labels(scanned.drop_missing("age"), number="age", name="label")


def resumes(make_one, expected, *, backend):
    """Return whether an epoch that was left in its middle goes on with exactly the batches that are missing."""
    first = make_one(workers=cf.Workers(backend=backend, count=2, prefetch=4))
    batches = iter(first)
    digests = [digest(next(batches)) for _ in range(len(expected) // 2)]
    state = json.loads(json.dumps(first.state()))
    del batches, first
    second = make_one(workers=cf.Workers(backend=backend, count=1, prefetch=0))
    return digests + [digest(batch) for batch in second.restore(state)] == expected and second.epoch == 1


def test_every_public_transform_and_sampler_is_in_these_tests():
    public = {getattr(cf, name) for name in cf.__all__}
    assert {each for each in public if hasattr(each, "sample")} == {type(each) for each in TRANSFORMS}
    samplers = {type(changes["sampler"]) for changes in SAMPLERS.values()}
    assert {each for each in public if hasattr(each, "expected_draws")} == samplers


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize(("workers", "prefetch"), [(1, 0), (2, 1), (4, 4)])
def test_threads(made, sampler, workers, prefetch):
    expected = epochs(make(made, sampler=sampler))
    assert epochs(make(made, sampler=sampler, workers=cf.Workers(count=workers, prefetch=prefetch))) == expected
    assert len({each for epoch in expected for each in epoch}) == 10


@pytest.mark.parametrize("sampler", ["uniform", "balanced"])
def test_processes(made, sampler):
    feed = make(made, sampler=sampler, workers=cf.Workers(count=2, prefetch=1, backend="process"))
    assert epochs(feed) == epochs(make(made, sampler=sampler))


@pytest.mark.parametrize("transforms", [CATALOGUE, [*CATALOGUE[::-1][1:], CATALOGUE[-1]]], ids=["fused", "reversed"])
def test_the_whole_catalogue(made, transforms):
    """Threads, processes, and a resume: noise, fields and choices have addresses like all that is random."""
    make_one = partial(make, made, transforms=transforms, frame=cf.Frame(height=48, width=48, channels=3))
    expected = epochs(make_one(), 1)[0]
    assert len(set(expected)) == len(expected)
    assert epochs(make_one(workers=cf.Workers(count=3, prefetch=2)), 1)[0] == expected
    assert epochs(make_one(workers=cf.Workers(count=2, prefetch=1, backend="process")), 1)[0] == expected
    assert resumes(make_one, expected, backend="thread")


def test_all_of_the_catalogue_is_in_these_tests():
    named = {name for name in ct.__all__ if hasattr(getattr(ct, name), "sample")} - {"Compose", "Transform"}
    inner = [
        each for outer in CATALOGUE for each in (*getattr(outer, "transforms", ()), getattr(outer, "transform", outer))
    ]
    names = {type(each).__name__ for each in (*TRANSFORMS, *CATALOGUE, *inner)}
    assert named - {"MixUp", "CutMix", "Call"} == names  # two mix a batch; Call has a user's function


@pytest.mark.slow
@pytest.mark.parametrize(("backend", "workers", "prefetch"), GRID)
def test_the_whole_grid(made, backend, workers, prefetch):
    feed = make(made, workers=cf.Workers(backend=backend, count=workers, prefetch=prefetch))
    assert epochs(feed, 3) == epochs(make(made), 3)


@pytest.mark.slow
@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("folder", ["lips", "pocus"])
def test_real_videos(request, folder, sampler):
    """RGB of `lips` and grey of `pocus`, each worker pool, and a resume in mid-epoch."""
    frame = cf.Frame(height=64, width=64, channels=3 if folder == "lips" else 1)
    make_one = partial(make, request.getfixturevalue(folder), frame=frame, sampler=sampler)
    expected = epochs(make_one(), 1)[0]
    assert len(set(expected)) == len(expected) > 5
    for backend, workers, prefetch in CREWS:
        feed = make_one(workers=cf.Workers(backend=backend, count=workers, prefetch=prefetch))
        assert epochs(feed, 1)[0] == expected, (backend, workers, prefetch)
    for backend in ("thread", "process"):
        assert resumes(make_one, expected, backend=backend), backend


@pytest.mark.parametrize("backend", ["thread", "process"])
def test_after_a_resume(made, backend):
    expected = epochs(make(made))[0]
    assert resumes(partial(make, made), expected, backend=backend)
    assert not resumes(partial(make, made, seed=8), expected, backend="thread")


HEAD = """
import json, sys
from epoch_digests import epochs, items, make
import cinefeed as cf
settings = json.loads(sys.argv[2])
if isinstance(settings.get("workers"), dict):
    settings["workers"] = cf.Workers(**settings["workers"])
feed = make(cf.Manifest.read(sys.argv[1]), **settings)
"""
ANOTHER = HEAD + "print(json.dumps(epochs(feed)))"
JAX = HEAD + "from cinefeed.adapters.jax import FeedIterator\nprint(json.dumps(items(FeedIterator(feed))))"


def elsewhere(code, manifest, path, **settings):
    """Run code in a process of its own, on a manifest written to `path`, and return what it prints."""
    manifest.write(path)
    done = subprocess.run(
        [sys.executable, "-c", code, path, json.dumps(settings, default=asdict)],
        cwd=Path(__file__).parent,
        env=os.environ | {"JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_in_a_fresh_process_twice(made, tmp_path, monkeypatch):
    expected = epochs(make(made, sampler="uniform"))
    for hash_seed in "12":
        monkeypatch.setenv("PYTHONHASHSEED", hash_seed)
        assert elsewhere(ANOTHER, made, tmp_path / "m.parquet", sampler="uniform", workers=int(hash_seed)) == expected
    assert epochs(make(made, sampler="uniform", seed=8)) != expected


@pytest.mark.slow
@pytest.mark.parametrize("folder", ["lips", "pocus"])
def test_real_videos_in_a_fresh_process_twice(request, tmp_path, folder):
    manifest = request.getfixturevalue(folder)
    expected = epochs(make(manifest, sampler="uniform"))
    for settings in ({"workers": 2}, {"workers": cf.Workers(count=2, backend="process")}):
        assert elsewhere(ANOTHER, manifest, tmp_path / "m.parquet", sampler="uniform", **settings) == expected


def through_torch(feed):
    from cinefeed.adapters.torch import FeedLoader

    return items(FeedLoader(feed))


def through_keras(feed):
    from cinefeed.adapters.keras import FeedDataset

    dataset, digests = FeedDataset(feed), []
    for _ in range(2):
        dataset.on_epoch_begin()
        digests.append([keras_digest(dataset[index]) for index in reversed(range(len(dataset)))])  # Keras shuffles
        dataset.on_epoch_end()
    return digests


@pytest.mark.parametrize("through", [through_torch, through_keras])
def test_the_same_samples_through_torch_and_keras(made, through):
    expected = as_items(make(made))
    assert through(make(made, workers=cf.Workers(count=2, backend="process"))) == expected
    assert through(make(made, workers=2, seed=8)) != expected


def test_the_same_samples_through_jax(made, tmp_path):
    workers = cf.Workers(count=2, backend="process")
    assert elsewhere(JAX, made, tmp_path / "m.parquet", workers=workers) == as_items(make(made))


def test_what_differs_in_one_bit_has_another_digest(made):
    batch = make(made)[0]
    whole = digest(batch)
    batch.clips.view(np.uint8).reshape(-1)[77] ^= 1
    assert digest(batch) != whole
    assert digest(np.zeros(2, np.int32)) != digest(np.zeros(2, np.float32)) != digest(np.zeros((2, 1), np.float32))
