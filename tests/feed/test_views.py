"""Several views a row: cut at the same time points, transformed alike or apart, as inputs of their own or channels."""

import json
from dataclasses import dataclass
from functools import partial

import numpy as np
import pyarrow as pa
import pytest
from epoch_digests import digest, epochs, items, keras_digest

import cinefeed as cf
from cinefeed.adapters.keras import FeedDataset
from cinefeed.adapters.torch import FeedLoader
from cinefeed.core.errors import FeedError, SettingError, SourceError
from cinefeed.testing import check_feed

STUDIES, BASE = 5, {"2ch": 0, "4ch": 100}


def studies_in(folder, *, lengths=None, row_subset=None):
    """Return a manifest of 5 studies of two views; pixels of frame f of study s are 20 s + f, in 4ch 100 more."""
    rows = []
    for study in range(STUDIES):
        for view, base in BASE.items():
            count = (lengths or {}).get(view, 12)
            frames = np.arange(count, dtype=np.uint8)[:, None, None] + np.uint8(20 * study + base)
            path = f"s{study}/{view}.npy"
            (folder / path).parent.mkdir(exist_ok=True)
            np.save(folder / path, np.broadcast_to(frames, (count, 20, 24) if view == "2ch" else (count, 30, 18)))
            sick = "yes" if study < 2 else "no"
            rows.append({"path": path, "view": view, "study": f"s{study}", "age": 30.0 + study, "sick": sick})
    table = cf.Manifest.from_table(pa.Table.from_pylist(rows), root=folder)
    return (table.as_private() if row_subset == "private" else table).pivot(by="view", within="study")


@pytest.fixture
def studies(tmp_path):
    return studies_in(tmp_path)


def make(manifest, **changes):
    settings = {
        "target": "age",
        "clip": cf.Clip(frames=4, stride=2),
        "frame": cf.Frame(height=16, width=16, channels=1),
        "batch_size": 2,
        "seed": 7,
        "workers": 0,
    }
    return cf.Feed(manifest, **{**settings, **changes})


MOVED = [cf.Rotate(degrees=20), cf.Shift(pixels=3), cf.Brightness(factor=0.2)]


def frames_of(batch, view):
    """Return the frame numbers of each clip."""
    study = np.array([int(name[1:]) for name in batch.ids])
    return batch.clips[view][:, :, 8, 8, 0].astype(int) - 20 * study[:, None] - BASE[view]


def test_views_are_cut_at_the_same_time_points(studies):
    feed = make(studies)
    starts = set()
    for _ in range(4):
        for batch in feed:
            assert list(batch.clips) == ["2ch", "4ch"] and batch.clips["4ch"].flags.c_contiguous
            frames_2ch = frames_of(batch, "2ch")
            assert np.array_equal(frames_2ch, frames_of(batch, "4ch"))
            assert (np.diff(frames_2ch, axis=1) == 2).all()
            starts |= set(frames_2ch[:, 0].tolist())
            assert batch.targets.tolist() == [30.0 + int(name[1:]) for name in batch.ids]
    assert len(starts) > 3


def test_where_lengths_differ_at_the_same_share_of_what_each_leaves_free(tmp_path):
    feed = make(studies_in(tmp_path, lengths={"2ch": 14, "4ch": 70}))
    for _ in range(3):
        for batch in feed:
            shares = [(frames_of(batch, view)[:, 0], count - 7 + 1) for view, count in (("2ch", 14), ("4ch", 70))]
            lows = [start / free for start, free in shares]
            highs = [(start + 1) / free for start, free in shares]
            assert (np.maximum(*lows) < np.minimum(*highs)).all()


def test_by_rate_views_of_other_rates_show_the_same_moments(tmp_path):
    rows = []
    for view, rate in (("2ch", 25.0), ("4ch", 50.0)):
        count = int(2 * rate)
        frames = np.broadcast_to(np.arange(count, dtype=np.uint8)[:, None, None], (count, 16, 16))
        np.save(tmp_path / f"{view}.npy", frames)
        metadata = {"num_frames": count, "step_seconds": 1 / rate, "height": 16, "width": 16, "channels": 1, "bits": 8}
        metadata |= {"container": "npy", "pixel_format": "uint8"}
        rows += [{"path": f"{view}.npy", "view": view, "study": "s", **metadata}]
    whole = cf.Manifest.from_table(pa.Table.from_pylist(rows), root=tmp_path)
    feed = make(whole.pivot(by="view", within="study"), target=None, clip=cf.Clip(frames=5, rate_hz=10), batch_size=1)
    for epoch in range(8):
        clips = feed.batch(0, epoch=epoch).clips
        seconds = [clips[view][0, :, 8, 8, 0] / rate for view, rate in (("2ch", 25.0), ("4ch", 50.0))]
        assert np.abs(seconds[0] - seconds[1]).max() < 0.041 and np.allclose(np.diff(seconds[1]), 0.1)


def test_geometry_is_shared_or_apart(tmp_path):
    rng = np.random.default_rng(0)
    np.save(tmp_path / "a.npy", rng.integers(0, 255, (12, 24, 24), np.uint8))
    table = pa.table({"id": list("ab"), "path": ["a.npy"] * 2, "view": ["one", "two"], "study": ["s"] * 2})
    manifest = cf.Manifest.from_table(table, root=tmp_path).pivot(by="view", within="study")
    shared, apart = (
        make(manifest, target=None, transforms=MOVED, inputs=cf.Inputs(geometry=geometry))[0].clips
        for geometry in ("shared", "apart")
    )
    assert np.array_equal(shared["one"], shared["two"]) and np.array_equal(shared["one"], apart["one"])
    assert not np.array_equal(apart["one"], apart["two"])
    still = make(manifest, target=None, inputs=cf.Inputs(geometry="apart"))[0].clips
    assert np.array_equal(still["one"], still["two"]), "the frames are the same, whatever the geometry"


@dataclass(frozen=True)
class Turn:
    """Play some clips backwards: a transform of time."""

    def sample(self, rng, info):
        return {"turned": bool(rng.random() < 0.5)}

    def indices(self, indices, parameters, count):
        return indices[::-1] if parameters["turned"] else indices

    def apply(self, frames, parameters):
        return frames


@pytest.mark.parametrize("clips", [1, 2])
def test_transforms_of_time_are_shared_whatever_the_geometry(studies, clips):
    feed = make(studies, transforms=[Turn()], inputs=cf.Inputs(geometry="apart"), clips_per_video=clips)
    turned = []
    for batch in feed:
        views = [batch.clips[view].astype(int) - BASE[view] for view in BASE]
        assert np.array_equal(*views)
        turned += (np.diff(views[0][:, :2, 8, 8, 0], axis=1) < 0)[:, 0].tolist()
    assert 0 < sum(turned) < len(turned) == STUDIES * clips
    padded = make(studies, transforms=[Turn()], clip=cf.Clip(frames=14, short="pad"))[0]
    assert padded.valid.sum(axis=1).tolist() == [12, 12] and padded.clips["2ch"][:, 11].all()


def test_stacked_they_are_the_channels_of_one_clip(studies):
    apart, stacked = make(studies, transforms=MOVED), make(studies, transforms=MOVED, inputs=cf.Inputs(stack=True))
    assert (apart.spec.clip_names, apart.spec.clip_shape) == (("clips_2ch", "clips_4ch"), (4, 16, 16, 1))
    assert (stacked.spec.clip_names, stacked.spec.clip_shape) == (("clips",), (4, 16, 16, 2))
    assert apart.spec.views == stacked.spec.views == ("2ch", "4ch")
    for one, other in zip(apart, stacked, strict=True):
        assert np.array_equal(np.concatenate(list(one.clips.values()), axis=-1), other.clips)
    rgb = make(studies, inputs=cf.Inputs(stack=True), frame=cf.Frame(height=16, width=16, channels=3))
    assert rgb[0].clips.shape == (2, 4, 16, 16, 6)


def test_some_views_in_an_order_of_ones_own(studies):
    feed = make(studies, inputs=cf.Inputs(views=["4ch", "2ch"], stack=True))
    assert (feed[0].clips[..., 0].astype(int) - feed[0].clips[..., 1]).mean() == 100
    one = make(studies, inputs=cf.Inputs(views=["4ch"]))
    assert list(one[0].clips) == ["4ch"] and one.spec.clip_names == ("clips_4ch",)
    assert "of 2ch, 4ch" in make(studies).summary()


def test_a_frame_is_valid_where_it_is_in_all_views(tmp_path):
    manifest = studies_in(tmp_path, lengths={"2ch": 3, "4ch": 12})
    batch = make(manifest, clip=cf.Clip(frames=5, position="start", short="pad"))[0]
    assert batch.valid.tolist() == [[True] * 3 + [False] * 2] * 2
    assert not batch.clips["4ch"][:, 3:].any() and batch.clips["4ch"][:, :3].all()


VARIANTS = [
    {},
    {"inputs": cf.Inputs(stack=True)},
    {"inputs": cf.Inputs(geometry="apart"), "clip": cf.Clip(frames=14, short="pad")},
]


@pytest.mark.parametrize("changes", VARIANTS, ids=str)
@pytest.mark.parametrize(("workers", "prefetch"), [(1, 0), (2, 3)])
def test_the_same_bytes_from_threads(studies, changes, workers, prefetch):
    expected = epochs(make(studies, transforms=MOVED, **changes))
    worker_pool = cf.Workers(count=workers, prefetch=prefetch)
    assert epochs(make(studies, transforms=MOVED, workers=worker_pool, **changes)) == expected
    assert len({each for epoch in expected for each in epoch}) == 6


def test_the_same_bytes_from_processes_and_after_a_resume(studies):
    make_one = partial(make, studies, transforms=MOVED, inputs=cf.Inputs(geometry="apart"))
    expected = epochs(make_one())
    feed = make_one(workers=cf.Workers(count=2, backend="process", prefetch=1))
    batches = iter(feed)
    begun = [digest(next(batches))]
    state = json.loads(json.dumps(feed.state()))
    assert begun + [digest(each) for each in batches] == expected[0]
    assert [digest(each) for each in make_one().restore(state)] == expected[0][1:]
    with pytest.raises(FeedError, match=r"inputs\.geometry: .*apart.* in the state"):
        make(studies, transforms=MOVED).restore(state)


@pytest.mark.parametrize("changes", [*VARIANTS, {"shard": cf.Shard(rank=1, world_size=2)}], ids=str)
def test_check_feed_passes(studies, changes):
    check_feed(make(studies, transforms=MOVED, workers=1, **changes))


@pytest.mark.slow
def test_check_feed_passes_with_all_workers_and_ranks(studies):
    make_one = partial(make, studies, transforms=MOVED)
    check_feed(make_one(), make=make_one)


def test_ranks_give_together_what_one_gives_alone(studies):
    def rows(feed):
        return {
            (str(name), *(clips[place].tobytes() for clips in batch.clips.values()))
            for batch in feed
            for place, name in enumerate(batch.ids)
            if name
        }

    alone = rows(make(studies, transforms=MOVED))
    ranks = [rows(make(studies, transforms=MOVED, shard=cf.Shard(rank=rank, world_size=2))) for rank in (0, 1)]
    assert ranks[0] | ranks[1] == alone and not ranks[0] & ranks[1] and len(alone) == STUDIES


def test_a_row_is_replaced_whole(studies):
    (studies.root / "s1" / "4ch.npy").write_bytes(b"\x93NUMPY is cut off")
    with pytest.raises(SourceError, match=r"row 1, s1/4ch\.npy \(view 4ch\): "):
        list(make(studies))
    feed = make(studies, target="sick", on_error="replace", max_bad=0.5)
    frames_by_id = [(str(name), frames_of(batch, view)) for batch in feed for name in batch.ids for view in BASE]
    assert sorted(name for name, _ in frames_by_id) == sorted(["s0", "s0", "s2", "s3", "s4"] * 2), "s0 is sick as well"
    assert all((frames >= 0).all() and (frames < 12).all() for _, frames in frames_by_id)
    assert make(studies, inputs=cf.Inputs(views=["2ch"]))[0].clips["2ch"].shape[0] == 2, (
        "a view that is not fed is not read"
    )


def test_errors_of_a_private_manifest_name_no_path(tmp_path):
    manifest = studies_in(tmp_path, row_subset="private")
    (tmp_path / "s1" / "4ch.npy").write_bytes(b"\x93NUMPY is cut off")
    with pytest.raises(SourceError) as caught:
        list(make(manifest))
    assert "row 1, " in str(caught.value) and "(view 4ch)" in str(caught.value)
    assert str(tmp_path) not in str(caught.value)


def test_an_evaluation_keeps_the_views(studies):
    feed = make(studies, transforms=MOVED, inputs=cf.Inputs(geometry="apart", stack=True, views=["4ch", "2ch"]))
    evaluation = feed.evaluation(studies)
    assert evaluation.spec == feed.spec and evaluation.settings.inputs.geometry == "apart"
    batch = make(studies, transforms=MOVED).evaluation(studies)[1]
    assert batch.ids.tolist() == ["s2", "s3"]
    for view in BASE:
        assert frames_of(batch, view).tolist() == [[2, 4, 6, 8]] * 2


def test_the_clips_as_targets_when_they_are_stacked(studies):
    with pytest.raises(SettingError, match=r"views are several; take inputs=Inputs\(stack=True\)"):
        make(studies, target="clip")
    batch = make(studies, target="clip", inputs=cf.Inputs(stack=True))[0]
    assert batch.targets.shape == (2, 4, 16, 16, 2) and np.shares_memory(batch.targets, batch.clips)


def test_both_views_count_for_the_memory(studies):
    one, two = (
        make(studies, workers=cf.Workers(count=0, memory="9MB"), inputs=cf.Inputs(views=views)).memory_budget
        for views in (["2ch"], ["2ch", "4ch"])
    )
    assert (one.buffer_bytes, two.buffer_bytes) == (
        2 * (4 * 256 + 4),
        2 * (2 * 4 * 256 + 4),
    ) and one.buffers > two.buffers


def test_adapters_give_each_view_by_its_name(studies):
    changes = {"transforms": MOVED, "clip": cf.Clip(frames=14, short="pad")}
    expected = [
        [
            digest(
                {**{f"clips_{view}": batch.clips[view] for view in BASE}, "valid": batch.valid},
                batch.targets,
                batch.weights,
            )
            for batch in epoch
        ]
        for feed in [make(studies, **changes)]
        for epoch in (list(feed), list(feed))
    ]
    assert items(FeedLoader(make(studies, **changes, workers=2))) == expected
    dataset = FeedDataset(make(studies, **changes, workers=1))
    dataset.on_epoch_begin()
    assert [keras_digest(dataset[index]) for index in range(3)] == expected[0]
    inputs, _, _ = next(iter(FeedLoader(make(studies), layout="BCTHW")))
    assert {name: tuple(each.shape) for name, each in inputs.items()} == dict.fromkeys(
        ["clips_2ch", "clips_4ch"], (2, 1, 4, 16, 16)
    )
    inputs, _, _ = next(iter(FeedLoader(make(studies, inputs=cf.Inputs(stack=True)))))
    assert list(inputs) == ["clips"] and inputs["clips"].shape == (2, 4, 16, 16, 2)


def test_what_cannot_be(studies, manifest):
    with pytest.raises(SettingError, match="there is no view '3ch'; did you mean"):
        make(studies, inputs=cf.Inputs(views=["2ch", "3ch"]))
    with pytest.raises(SettingError, match="must name one view or more, each once; there are: 2ch, 4ch"):
        make(studies, inputs=cf.Inputs(views=["2ch", "2ch"]))
    with pytest.raises(SettingError, match="must name one view or more"):
        make(studies, inputs=cf.Inputs(views=[]))
    with pytest.raises(SettingError, match=r"here a row is one; put them side by side with manifest\.pivot"):
        make(manifest, inputs=cf.Inputs(views=["2ch"]))
    with pytest.raises(SettingError, match="here a row is one"):
        make(manifest, inputs=cf.Inputs(stack=True))
    with pytest.raises(SettingError, match="geometry='share' is not a choice; did you mean 'shared'"):
        make(studies, inputs=cf.Inputs(geometry="share"))
    named = cf.Manifest(studies.table.append_column("clips_2ch", pa.array([1.0] * 5)), root=studies.root)
    with pytest.raises(SettingError, match="cannot be called 'clips_2ch'"):
        make(named, inputs=cf.Inputs(covariates=["clips_2ch"]))
    empty = studies.table.append_column("num_frames:4ch", pa.array([9, 0, 9, 9, 9]))
    with pytest.raises(SourceError, match=r"1 of 5 files hold no frame .*row 1, s1/4ch\.npy \(view 4ch\)"):
        make(cf.Manifest(empty, root=studies.root))
