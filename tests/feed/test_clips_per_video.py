"""Several clips of one decoded stretch: near each other, counted right, and the same whoever makes them and when."""

import json
from collections import Counter
from functools import partial

import numpy as np
import pyarrow as pa
import pytest
from epoch_digests import digest, epochs, items, keras_digest

import cinefeed as cf
from cinefeed.adapters.keras import FeedDataset
from cinefeed.adapters.torch import FeedLoader
from cinefeed.core.errors import ClipError, FeedError, SettingError
from cinefeed.data.manifest.rows import Rows
from cinefeed.feed.clip_pipeline import ClipPipeline, PlanEntry, decode_once
from cinefeed.testing import check_feed, numbered_frames, read_number, write_video
from cinefeed.transforms.compose import Compose
from cinefeed.video.metadata import VideoMetadata
from cinefeed.video.timestamps import FrameTimes


def make(manifest, **changes):
    settings = {
        "target": "age",
        "clip": cf.Clip(frames=3),
        "frame": cf.Frame(height=16, width=16, channels=1),
        "transforms": [cf.Rotate(degrees=20), cf.Brightness(factor=0.2)],
        "batch_size": 4,
        "seed": 7,
        "workers": 0,
        "clips_per_video": 2,
    }
    return cf.Feed(manifest, **{**settings, **changes})


SPREAD = pytest.mark.parametrize("interleave", [False, True], ids=["together", "interleave"])


def starts_of(batch):
    """Return the row of each clip, and the number of its first frame, where nothing is transformed."""
    rows = np.array([int(name[1:]) for name in batch.ids])
    return rows, batch.clips[:, 0, 8, 8, 0].astype(int) - 20 * rows


@SPREAD
def test_an_epoch_has_as_many_times_the_clips(manifest, interleave):
    feed = make(manifest, clips_per_video=cf.ClipsPerVideo(interleave=interleave, count=4))
    batches = list(feed)
    rows = feed.plan(epoch=0).rows
    assert len(rows) == 11 and Counter(str(name) for batch in batches for name in batch.ids) == {
        f"v{row}": 4 for row in range(11)
    }
    assert feed.epoch == 1 and len(feed) == len(batches) == (12 if interleave else 11)
    assert [len(batch.ids) for batch in batches] == ([4] * 8 + [3] * 4 if interleave else [4] * 11)
    assert "11 draws an epoch, of one sample at most 1, 4 clips each" in feed.summary()
    for index, batch in enumerate(batches):
        expected = rows[index // 4 * 4 : index // 4 * 4 + 4] if interleave else [rows[index]] * 4
        assert batch.ids.tolist() == [f"v{row}" for row in expected]
        assert batch.targets.tolist() == [20.0 + row * row for row in expected]


@SPREAD
def test_clips_of_a_video_differ_and_lie_near_each_other(manifest, interleave):
    feed = make(manifest, clips_per_video=cf.ClipsPerVideo(count=2, interleave=interleave), transforms=[])
    apart, starts = Counter(), Counter()
    for _ in range(20):
        batches = list(feed)
        results = {}
        for batch in batches:
            for row, start in zip(*starts_of(batch), strict=True):
                results.setdefault(row, []).append(start)
        assert all(len(each) == 2 for each in results.values())
        apart.update(abs(one - other) for one, other in results.values())
        starts.update(start for each in results.values() for start in each)
    assert set(apart) == {0, 1, 2, 3}, "the stretch is twice as long as a clip"
    assert set(starts) == set(range(10)), "every place of the video is come to"
    moved = make(
        manifest,
        clips_per_video=cf.ClipsPerVideo(count=2, interleave=interleave),
        clip=cf.Clip(frames=3, position="center"),
    )
    clips = [clip.tobytes() for batch in moved for clip in batch.clips]
    assert len(set(clips)) == 22, "in the same frames each has its own transforms"


@pytest.mark.parametrize("clip", [cf.Clip(frames=3, stride=2), cf.Clip(frames=4, rate_hz=10), cf.Clip(frames=3)])
def test_the_frames_of_a_stretch(clip):
    """By the maker itself, over many draws: within a stretch twice as long, each clip as the video would give it."""
    times = FrameTimes(0.0, 0.04, 50)
    select = selection_of(clip, clips=3)
    for position in range(60):
        selection = select(position, times)
        firsts = [indices[0] for indices, _ in selection]
        span = (clip.frames - 1) * clip.stride + 1 if clip.rate_hz is None else round(clip.frames / clip.rate_hz / 0.04)
        assert max(firsts) - min(firsts) <= span + clip.stride
        for indices, real in selection:
            assert len(indices) == clip.frames and real.all() and indices.min() >= 0 and indices.max() < 50
            step = clip.stride if clip.rate_hz is None else 2.5
            assert np.abs(np.diff(indices) - step).max() < 1


def test_a_video_as_short_as_its_clip_serves_whatever_becomes_of_shorter_ones():
    clip = cf.Clip(frames=14, rate_hz=30, short="error")  # 13 ticks of 1/30 s in 11 frames of 1/25 s
    select = selection_of(clip, clips=2)
    assert all(real.all() for _, real in select(3, FrameTimes(0.0, 0.04, 12)))
    with pytest.raises(ClipError, match="the video lasts"):
        select(3, FrameTimes(0.0, 0.04, 11))
    padded = selection_of(cf.Clip(frames=5, short="pad"), clips=2)
    assert [real.sum() for _, real in padded(3, FrameTimes(0.0, 0.04, 4))] == [4, 4]


def test_clips_stay_within_the_seconds_of_their_row():
    select = selection_of(cf.Clip(frames=4), clips=4, start_seconds=0.4, end_seconds=0.8)
    listed = np.arange(50) * 0.04
    for times in (FrameTimes(0.0, 0.04, 50), FrameTimes(0.0, float("nan"), 50, listed)):
        frames_read = set()
        for position in range(40):
            for indices, real in select(position, times):
                frames_read |= set(indices.tolist())
                assert real.all()
        assert frames_read == set(range(10, 20))


def selection_of(clip, *, clips, **columns):
    """Return a function of position and times: the frames of each clip, and which are not padding."""
    rows = cf.Manifest.from_table({"path": ["a.npy"], **{name: [value] for name, value in columns.items()}}).rows
    compose = Compose((), frame=cf.Frame(height=8, width=8, channels=1))
    pipeline = ClipPipeline(rows=rows, clip=clip, compose=compose, channels=1, seed=0, clips=clips)

    def select(position, times):
        metadata = VideoMetadata(height=8, width=8, channels=1, bits=8, times=times)
        return [(each.frames, each.real) for each in pipeline.sample_clips(PlanEntry(0, 0, position), "", metadata)]

    return select


def test_a_video_is_opened_and_decoded_once(manifest, monkeypatch):
    requests, opened = [], []
    original = Rows.open

    def noting(rows, row, **settings):
        source = original(rows, row, **settings)
        opened.append(row)
        planes = source.planes
        monkeypatch.setattr(source, "planes", lambda indices: requests.append(np.asarray(indices)) or planes(indices))
        return source

    monkeypatch.setattr(Rows, "open", noting)
    for interleave in (False, True):
        opened.clear()
        requests.clear()
        list(make(manifest, clips_per_video=cf.ClipsPerVideo(count=4, interleave=interleave)))
        assert sorted(opened) == list(range(11)) and len(requests) == 11
        assert all(len(set(each.tolist())) == len(each) <= 6 for each in requests)


def test_what_is_decoded_once_is_what_each_clip_would_get(tmp_path):
    path = write_video(tmp_path / "a.mp4", numbered_frames(40), gop=12, b_frames=2)
    clips = [np.array([7, 9, 11]), np.array([11, 11, 10]), np.array([30, 2, 7])]
    with cf.open_video(path, channels=1) as source:
        for indices, planes in zip(clips, decode_once(source, clips), strict=True):
            assert [read_number(frame[0]) for frame in planes.frames] == indices.tolist()


def test_each_clip_has_the_address_of_the_plans_position_and_its_number(manifest):
    """So how clips are dealt out to batches changes none of them; the seed and the epoch change all."""

    def clips(epoch=0, **changes):
        feed = make(manifest, sampler=cf.Natural(shuffle=False), **changes)
        feed.set_epoch(epoch)
        return Counter(clip.tobytes() for batch in feed for clip in batch.clips)

    result = clips()
    for changes in (
        {"batch_size": 2},
        {"batch_size": 22},
        {"clips_per_video": cf.ClipsPerVideo(count=2, interleave=True)},
        {"clips_per_video": cf.ClipsPerVideo(count=2, interleave=True), "batch_size": 5},
    ):
        assert clips(**changes) == result
    assert result.total() == 22 and len(result) > 20
    for changes in ({"epoch": 1}, {"seed": 8}):
        assert len(result.keys() & clips(**changes).keys()) < 3


@SPREAD
@pytest.mark.parametrize(("workers", "prefetch"), [(1, 0), (2, 1), (2, 5)])
def test_the_same_bytes_from_threads(manifest, interleave, workers, prefetch):
    make_one = partial(make, manifest, clips_per_video=cf.ClipsPerVideo(count=2, interleave=interleave))
    expected = epochs(make_one())
    assert epochs(make_one(workers=cf.Workers(count=workers, prefetch=prefetch))) == expected
    assert len({each for epoch in expected for each in epoch}) == 12
    assert [digest(make_one().batch(index)) for index in range(6)] == expected[0]


@pytest.mark.parametrize("interleave", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_the_same_bytes_from_processes(manifest, interleave):
    feed = make(
        manifest,
        clips_per_video=cf.ClipsPerVideo(count=2, interleave=interleave),
        workers=cf.Workers(count=2, backend="process", prefetch=1),
    )
    assert epochs(feed) == epochs(make(manifest, clips_per_video=cf.ClipsPerVideo(count=2, interleave=interleave)))


@SPREAD
def test_after_every_batch_the_missing_ones_follow(manifest, interleave):
    make_one = partial(make, manifest, clips_per_video=cf.ClipsPerVideo(count=2, interleave=interleave))
    feed, expected, states = make_one(workers=1), [], []
    for batch in feed:
        expected.append(digest(batch))
        states.append(json.loads(json.dumps(feed.state())))
    for num_batches, state in enumerate(states, start=1):
        again = make_one(workers=num_batches % 2).restore(state)
        rest = expected[num_batches:]
        assert [digest(batch) for batch in again][: len(rest)] == rest
        assert again.epoch == (1 if rest else 2)


@SPREAD
def test_ranks_give_together_what_one_gives_alone(manifest, interleave):
    def rows(feed):
        return Counter(
            (str(name), clip.tobytes(), valid.all())
            for batch in feed
            for name, clip, valid in zip(batch.ids, batch.clips, batch.valid, strict=True)
            if name
        )

    alone = rows(make(manifest, clips_per_video=cf.ClipsPerVideo(count=2, interleave=interleave)))
    feeds = [
        make(
            manifest,
            clips_per_video=cf.ClipsPerVideo(count=2, interleave=interleave),
            shard=cf.Shard(rank=rank, world_size=2),
        )
        for rank in (0, 1)
    ]
    assert rows(feeds[0]) + rows(feeds[1]) == alone and alone.total() == 22
    assert len({len(feed) for feed in feeds}) == 1
    padded = [len(batch.ids) - (batch.ids != "").sum() for feed in feeds for batch in feed]
    assert sum(padded) == 2, "11 draws on two ranks: one of padding, of two clips"
    dropped = make(manifest, clips_per_video=cf.ClipsPerVideo(count=2, interleave=interleave), drop_last=True)
    assert {len(batch.ids) for batch in dropped} == {4} and len(dropped) == (4 if interleave else 5)


def test_a_state_of_other_ranks_is_restored_where_all_clips_of_its_videos_were_given(manifest):
    def states(world_size, **changes):
        feed = make(manifest, shard=cf.Shard(rank=0, world_size=world_size), batch_size=2, **changes)
        return [feed.state() for _ in feed]

    together = states(2)
    after = make(manifest, batch_size=2).restore(together[0])
    assert sorted({str(name) for batch in after for name in batch.ids}) == sorted(
        f"v{row}" for row in make(manifest, batch_size=2).plan(epoch=0).rows[2:]
    )
    interleave = states(2, clips_per_video=cf.ClipsPerVideo(count=2, interleave=True))
    assert [each["draws"] for each in interleave[:3]] == [4, 8, 12]
    alone = make(manifest, batch_size=2, clips_per_video=cf.ClipsPerVideo(count=2, interleave=True)).restore(
        interleave[1]
    )
    counts = Counter(str(name) for batch in alone for name in batch.ids)
    assert counts == {f"v{row}": 2 for row in alone.plan(epoch=0).rows[4:]}
    with pytest.raises(
        FeedError, match=r"draw 4 of epoch 0, between batches of the same.*draw 0 and draw 8. .*on 2 ranks;"
    ):
        alone.restore(interleave[0])
    assert (
        make(
            manifest,
            shard=cf.Shard(rank=1, world_size=2),
            batch_size=2,
            clips_per_video=cf.ClipsPerVideo(count=2, interleave=True),
        )
        .restore(interleave[0])
        .state()
        == interleave[0]
    )


def test_a_state_of_other_clips_is_refused(manifest):
    with pytest.raises(FeedError, match=r"clips_per_video\.interleave: 'False' in the state, 'True' in this feed"):
        make(manifest, clips_per_video=cf.ClipsPerVideo(count=2, interleave=True)).restore(make(manifest).state())
    one = make(manifest, clips_per_video=1)
    assert one.restore(make(manifest, clips_per_video=cf.ClipsPerVideo(count=1, interleave=True)).state()).epoch == 0, (
        "interleave changes nothing for one clip"
    )


@SPREAD
def test_a_bad_row_is_replaced_with_all_of_its_clips(manifest, interleave):
    (manifest.root / "03.npy").write_bytes(b"\x93NUMPY is cut off")
    feed = make(
        manifest,
        clips_per_video=cf.ClipsPerVideo(count=2, interleave=interleave),
        target="sick",
        on_error="replace",
        max_bad=0.1,
        transforms=[],
    )
    counts = Counter()
    for batch in feed:
        rows, starts = starts_of(batch)
        assert ((starts >= 0) & (starts < 12)).all()
        counts.update(rows.tolist())
    assert counts.total() == 22 and counts[3] == 0 and set(counts.values()) <= {2, 4}
    assert len(feed.stats().skipped) == 1


@SPREAD
def test_every_full_batch_is_balanced(manifest, interleave):
    feed = make(
        manifest,
        target="sick",
        sampler=cf.BalancedClasses(),
        clips_per_video=cf.ClipsPerVideo(count=2, interleave=interleave),
        drop_last=True,
    )
    assert {batch.targets.tolist().count(1) for _ in range(3) for batch in feed} == {2}


@SPREAD
def test_check_feed_passes(manifest, interleave):
    for changes in (
        {},
        {"shard": cf.Shard(rank=1, world_size=2)},
        {"clip": cf.Clip(frames=14, short="pad"), "batch_size": 6},
    ):
        check_feed(
            make(manifest, clips_per_video=cf.ClipsPerVideo(count=2, interleave=interleave), workers=1, **changes)
        )
    long = {"target": "sick", "sampler": cf.BalancedClasses(length=100)}
    check_feed(
        make(
            manifest,
            clips_per_video=cf.ClipsPerVideo(count=3, interleave=interleave),
            batch_size=3,
            transforms=[],
            **long,
        )
    )


@pytest.mark.slow
@SPREAD
def test_check_feed_passes_with_all_workers_and_ranks(manifest, interleave):
    make_one = partial(make, manifest, clips_per_video=cf.ClipsPerVideo(count=2, interleave=interleave))
    check_feed(make_one(), make=make_one)


def test_with_views_all_clips_are_at_the_same_time_points(manifest):
    views = ["a", "b"] * 5
    columns = {"view": views, "study": [f"s{row // 2}" for row in range(10)]}
    table = manifest.take(range(10)).table.drop_columns(["age", "sick"])
    for name, values in columns.items():
        table = table.append_column(name, pa.array(values))
    pivoted = cf.Manifest(table, root=manifest.root).pivot(by="view", within="study")
    for changes in (
        {},
        {"clips_per_video": cf.ClipsPerVideo(count=2, interleave=True)},
        {"inputs": cf.Inputs(stack=True)},
    ):
        feed = make(pivoted, target=None, transforms=[], **changes)
        for batch in feed:
            pair = batch.clips.values() if isinstance(batch.clips, dict) else np.moveaxis(batch.clips, -1, 0)
            first, second = (each.reshape(len(batch.ids), 3, -1).astype(int) for each in pair)
            assert (second - first == 20).all(), "each study has rows 2 s and 2 s + 1"
        check_feed(make(pivoted, target=None, **changes))


def test_the_memory_of_batches_that_are_made_together(manifest):
    together, interleave = (
        make(
            manifest,
            workers=cf.Workers(count=0, memory="9MB"),
            clips_per_video=cf.ClipsPerVideo(count=2, interleave=interleave),
        ).memory_budget
        for interleave in (False, True)
    )
    assert interleave.buffer_bytes == 2 * together.buffer_bytes and interleave.batches == 2 and together.batches == 1
    assert f"{2 * interleave.buffers} batches of" in str(interleave)
    interleaved = cf.ClipsPerVideo(count=2, interleave=True)
    workers = cf.Workers(count=0, memory="9MB")
    assert len(list(make(manifest, workers=workers, clips_per_video=interleaved))) == 6
    workers = cf.Workers(count=0, memory=8_000_000 + 2 * interleave.buffer_bytes)
    feed, held = make(manifest, workers=workers, clips_per_video=interleaved), []
    with pytest.raises(FeedError, match=r"all \d+ batches that the memory budget allows are held"):
        for _ in range(2):
            held += list(feed)


@SPREAD
def test_adapters_give_the_same(manifest, interleave):
    make_one = partial(make, manifest, clips_per_video=cf.ClipsPerVideo(count=2, interleave=interleave))
    expected = [[digest({"clips": each.clips}, each.targets, each.weights) for each in make_one()]]
    assert items(FeedLoader(make_one(workers=2)), 1) == expected
    dataset = FeedDataset(make_one(workers=1))
    dataset.on_epoch_begin()
    assert [keras_digest(dataset[index]) for index in range(len(dataset))] == expected[0]


@SPREAD
def test_an_evaluation_has_every_row_once(manifest, interleave):
    feed = make(manifest, clips_per_video=cf.ClipsPerVideo(count=2, interleave=interleave))
    once = feed.evaluation(manifest, clips=1)
    assert [str(name) for batch in once for name in batch.ids] == [f"v{row}" for row in range(11)]
    each = feed.evaluation(manifest)  # as many clips a row as in training, together
    assert each.settings.clips_per_video == cf.ClipsPerVideo(count=2)
    names = [f"v{row}" for row in range(11) for _ in range(2)]
    assert [str(name) for batch in each for name in batch.ids] == names
    start = make(manifest, clips_per_video=2, clip=cf.Clip(frames=4, position="start"))
    assert start.evaluation(manifest).settings.clips_per_video.count == 1


@pytest.mark.parametrize("wrong", [0, -1, 1.5, True])
def test_what_is_no_number_of_clips(manifest, wrong):
    with pytest.raises(SettingError, match="must be a whole number"):
        make(manifest, clips_per_video=wrong)


def test_a_batch_that_does_not_hold_whole_videos(manifest):
    with pytest.raises(
        SettingError, match="batch_size = 4 does not hold whole videos of clips_per_video = 3; take a mul"
    ):
        make(manifest, clips_per_video=3)
    assert len(make(manifest, clips_per_video=cf.ClipsPerVideo(count=3, interleave=True))) == 9
