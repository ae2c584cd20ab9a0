"""Parameters say how a row came about, and an address gives its clip again."""

import json
from dataclasses import replace
from functools import partial

import numpy as np
import pyarrow as pa
import pytest
from epoch_digests import digest

import cinefeed as cf
from cinefeed.core.errors import SettingError
from cinefeed.testing import check_feed
from cinefeed.transforms import CutMix, Elastic, Jitter, OneOf, Speed

TRANSFORMS = [
    Speed(factor=0.5),
    cf.Rotate(degrees=20),
    OneOf(transforms=(Elastic(fraction=0.1), cf.Shift(pixels=3))),
    cf.Brightness(factor=0.2),
]


def make(manifest, **changes):
    settings = {
        "target": "age",
        "clip": cf.Clip(frames=4, stride=2),
        "frame": cf.Frame(height=16, width=16, channels=1),
        "transforms": TRANSFORMS,
        "batch_size": 4,
        "seed": 7,
        "workers": 0,
        "return_parameters": True,
    }
    return cf.Feed(manifest, **{**settings, **changes})


def print_of(batch):
    """Return a batch as its parameters, and a digest of all else."""
    return json.dumps(batch.parameters), digest(replace(batch, parameters=()))


def epochs(feed, count=2):
    return [[print_of(batch) for batch in feed] for _ in range(count)]


def pivoted(manifest):
    columns = {"study": [f"s{row // 2}" for row in range(10)], "view": ["a", "b"] * 5}
    table = manifest.take(range(10)).table.select(["id", "path"])
    for name, values in columns.items():
        table = table.append_column(name, pa.array(values))
    return cf.Manifest(table, root=manifest.root).pivot(by="view", within="study")


def test_they_say_what_was_done(manifest):
    """The frames are those whose numbers the pixels show, and the transforms make the clip of them again."""
    feed = make(manifest, transforms=[Speed(factor=0.5), Jitter(frames=2)])
    for batch in feed:
        for clip, parameters in zip(batch.clips, batch.parameters, strict=True):
            assert (clip[:, 8, 8, 0] - 20 * parameters["row"]).tolist() == parameters["frames"]
            assert sorted(parameters["transforms"][0]) == ["factor"] and len(parameters["transforms"][1]["moves"]) == 4
    parameters = [each for batch in make(manifest) for each in batch.parameters]
    assert [each["index"] for each in parameters] == list(range(11)) and {each["epoch"] for each in parameters} == {0}
    assert [each["row"] for each in parameters] == make(manifest).plan().rows.tolist()
    assert parameters == json.loads(json.dumps(parameters))
    assert len({each["transforms"][1]["degrees"] for each in parameters}) == 11


def test_they_change_nothing_else(manifest):
    for batch, plain in zip(make(manifest), make(manifest, return_parameters=False), strict=True):
        assert digest(batch.clips, batch.targets, batch.valid) == digest(plain.clips, plain.targets, plain.valid)
        assert plain.parameters == () and list(batch.inputs(padded=True)) == list(plain.inputs(padded=True))


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"clips_per_video": 2},
        {"clips_per_video": cf.ClipsPerVideo(count=2, interleave=True)},
        {"mixing": CutMix(regression="blend")},
        {"mixing": CutMix(regression="blend"), "clips_per_video": cf.ClipsPerVideo(count=2, interleave=True)},
        {"shard": cf.Shard(rank=1, world_size=2), "mixing": CutMix(regression="blend")},
        {"clip": cf.Clip(frames=16, short="pad"), "shard": cf.Shard(rank=1, world_size=2)},
        {"target": "clip"},
        {"target": ["age", "sick"], "inputs": cf.Inputs(covariates=["age"])},
    ],
    ids=str,
)
def test_an_address_gives_the_row_again(manifest, changes):
    feed, other = make(manifest, **changes, workers=1), make(manifest, **changes, return_parameters=False)
    num_rows = 0
    for _ in range(2):
        for batch in feed:
            for place, parameters in enumerate(batch.parameters):
                if not parameters:
                    assert batch.ids[place] == ""
                    continue
                again = other.replay(parameters["epoch"], parameters["index"])
                assert len(again.ids) == 1 and print_of(again) == print_of(again.row(0)) == print_of(batch.row(place))
                num_rows += 1
    assert num_rows > 8


@pytest.mark.parametrize("clips", [pytest.param(1, marks=pytest.mark.slow), 2])
def test_processes_tell_the_same(manifest, clips):
    make_one = partial(make, manifest, clips_per_video=clips)
    feed = make_one(workers=cf.Workers(count=2, backend="process"))
    for theirs, ours in zip(feed, make_one(), strict=True):
        assert theirs.parameters == ours.parameters
        parameters = theirs.parameters[-1]
        assert print_of(make_one().replay(0, parameters["index"])) == print_of(theirs.row(len(theirs.ids) - 1))


def test_views_are_told_by_name(manifest):
    feed = make(pivoted(manifest), target=None, inputs=cf.Inputs(geometry="apart"))
    for batch in feed:
        for place, parameters in enumerate(batch.parameters):
            degrees = {parameters["views"][view]["transforms"][1]["degrees"] for view in "ab"}
            assert set(parameters["views"]) == {"a", "b"} and len(degrees) == 2
            assert print_of(feed.replay(0, parameters["index"])) == print_of(batch.row(place))
    stacked = make(pivoted(manifest), target=None, inputs=cf.Inputs(stack=True))
    parameters = stacked[0].parameters[0]["views"]
    assert parameters["a"] == parameters["b"]


@pytest.mark.parametrize("scanned", [False, True])
def test_what_hangs_on_the_file(manifest, scanned):
    """Lengths differ, and the size of a pixel: what a scan knows, and what the opened file tells, give the same."""
    for row in range(11):
        np.save(manifest.root / f"{row:02}.npy", np.zeros((8 + row, 20, 24), np.uint8))
    scanned_manifest = cf.Manifest.scan(manifest.root, progress=False)
    table = scanned_manifest.table
    for name, value in (("spacing_down_mm", 2.0), ("spacing_across_mm", 0.5)):
        table = table.set_column(table.schema.get_field_index(name), name, pa.array([value] * 11))
    in_mm = cf.Manifest(table, root=manifest.root)
    part = in_mm if scanned else cf.Manifest(scanned_manifest.table.select(["id", "path"]), root=manifest.root)
    settings = {"target": None, "transforms": [Speed(factor=0.5), cf.Rotate(degrees=9), cf.Shift(fraction=0.1)]}
    parameters = [each for batch in make(part, **settings) for each in batch.parameters]
    assert [each["frames"] for each in parameters] == [
        each["frames"] for batch in make(scanned_manifest, **settings) for each in batch.parameters
    ]
    if scanned:
        moves = [cf.Shift(mm=4)]
        feed = make(part, target=None, transforms=moves, frame=cf.Frame(height=16, width=16, channels=1, spacing_mm=2))
        for batch in feed:
            for place, each in enumerate(batch.parameters):
                assert max(map(abs, each["transforms"][0].values())) <= 2
                assert print_of(feed.replay(0, each["index"])) == print_of(batch.row(place))


def test_a_row_that_was_replaced_is_told(manifest):
    (manifest.root / "03.npy").write_bytes(b"")
    feed = make(manifest, on_error="replace", max_bad=0.1)
    rows = [parameters["row"] for batch in feed for parameters in batch.parameters]
    place = feed.plan(epoch=0).rows.tolist().index(3)
    assert rows[place] != 3 and len(rows) == 11
    again = feed.replay(0, place)
    assert again.parameters[0]["row"] == rows[place] and again.ids[0] == f"v{rows[place]}"


def test_an_evaluation_has_them_too(manifest):
    evaluation = make(manifest).evaluation(manifest)
    parameters = [each for batch in evaluation for each in batch.parameters]
    assert [each["row"] for each in parameters] == list(range(11)) and parameters[0]["transforms"] == []
    assert len({str(each["frames"]) for each in parameters}) == 1


@pytest.mark.parametrize("changes", [{}, {"clips_per_video": cf.ClipsPerVideo(count=2, interleave=True)}], ids=str)
def test_a_checked_feed(manifest, changes):
    check_feed(make(manifest, **changes))
    assert epochs(make(manifest, **changes, workers=2)) == epochs(make(manifest, **changes))


def test_addresses_that_are_none(manifest):
    feed = make(manifest, clips_per_video=2)
    assert feed.replay(np.int64(0), np.int64(21)).parameters[0]["index"] == 21
    with pytest.raises(IndexError, match="clip 22 was requested, but epoch 3 has 22 clips, numbered from 0"):
        feed.replay(3, 22)
    for wrong in (-1, 1.0, True, "0"):
        with pytest.raises(SettingError, match=r"replay\(index=.*\) must be a whole number of at least 0"):
            feed.replay(0, wrong)
    with pytest.raises(SettingError, match="epoch=-1"):
        feed.replay(-1, 0)


def test_a_replay_disturbs_no_iteration(manifest):
    expected = epochs(make(manifest), 1)[0]
    feed, digests = make(manifest, workers=1), []
    for batch in feed:
        digests.append(print_of(batch))
        feed.replay(5, 0)
    assert digests == expected and feed.epoch == 1
