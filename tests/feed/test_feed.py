import gc
import hashlib
import inspect
import threading
import time
from dataclasses import MISSING, dataclass, fields

import numpy as np
import pytest

import cinefeed as cf
from cinefeed import transforms as ct
from cinefeed.core.errors import ColumnError, FeedError, LabelError, SettingError, SourceError, TableError
from cinefeed.feed.settings import FeedSettings
from cinefeed.feed.workers.pools import ThreadPool

FRAME = cf.Frame(height=16, width=16, channels=1)


def make(manifest, **changes):
    settings = {
        "target": "age",
        "clip": cf.Clip(frames=4, stride=2),
        "frame": FRAME,
        "transforms": [cf.Rotate(degrees=20), cf.Shift(pixels=3), cf.Brightness(factor=0.2)],
        "batch_size": 4,
        "seed": 7,
        "workers": 2,
    }
    return cf.Feed(manifest, **{**settings, **changes})


def digest(batches):
    whole = hashlib.sha256()
    for batch in batches:
        for array in (batch.clips, batch.targets, batch.weights, batch.ids, batch.valid):
            whole.update(np.ascontiguousarray(array).tobytes())
    return whole.hexdigest()


def ids_of(batches):
    return [str(each) for batch in batches for each in batch.ids]


def test_every_row_once_an_epoch_and_the_tail_is_kept(manifest):
    feed = make(manifest)
    batches = list(feed)
    assert [len(batch.ids) for batch in batches] == [4, 4, 3] and len(feed) == 3
    assert sorted(ids_of(batches)) == sorted(f"v{row}" for row in range(11))


def test_the_tail_can_be_dropped(manifest):
    feed = make(manifest, drop_last=True)
    assert [len(batch.ids) for batch in feed] == [4, 4] and len(feed) == 2


def test_clips_targets_and_ids_belong_together(manifest):
    feed = make(manifest, transforms=[], clip=cf.Clip(frames=4, position="start"))
    for batch in feed:
        for clip, target, name, valid in zip(batch.clips, batch.targets, batch.ids, batch.valid, strict=True):
            row = int(name[1:])
            assert (clip[:, 8, 8, 0] == 20 * row + np.arange(4)).all()
            assert target == 20 + row * row and valid.all()


@pytest.mark.parametrize("workers", [1, 2, 4])
@pytest.mark.parametrize("prefetch", [0, 3])
def test_the_same_bytes_for_any_number_of_workers(manifest, workers, prefetch):
    alone = [digest(make(manifest, workers=0)) for _ in range(1)]
    feed = make(manifest, workers=cf.Workers(count=workers, prefetch=prefetch))
    assert [digest(feed)] == alone


def test_another_seed_or_epoch_is_another_epoch(manifest):
    feed = make(manifest)
    epochs = [digest(feed), digest(feed), digest(make(manifest, seed=8))]
    assert len(set(epochs)) == 3
    feed.set_epoch(0)
    assert digest(feed) == epochs[0]


def test_a_batch_by_index_is_the_one_of_the_iterator(manifest):
    feed = make(manifest)
    for index, batch in enumerate(make(manifest)):
        assert digest([feed.batch(index, epoch=0)]) == digest([feed[index]]) == digest([batch])
    assert digest([feed[-1]]) == digest([feed[2]])
    with pytest.raises(IndexError, match="has 3 batches"):
        feed[3]


def test_an_abandoned_iterator_leaves_no_thread(manifest):
    gc.collect()  # feeds of other tests
    before = set(threading.enumerate())
    for _ in make(manifest, workers=cf.Workers(count=2, prefetch=5)):
        break
    gc.collect()
    assert set(threading.enumerate()) <= before


def test_held_batches_keep_their_pixels(manifest):
    feed = make(manifest)
    held = list(feed)
    assert digest(held) == digest(feed.batch(index, epoch=0) for index in range(3))


def test_memory_comes_back_when_batches_die(manifest):
    feed = make(manifest, workers=cf.Workers(count=2, prefetch=1))
    for _ in range(5):
        for _batch in feed:
            pass
    del _batch
    gc.collect()
    assert feed._builder.buffers.free <= 4  # one in use, one made ahead, one under way, one handed over


def test_resume_continues_with_the_next_batch(manifest):
    whole = [digest([batch]) for batch in make(manifest)]
    feed = make(manifest)
    batches = iter(feed)
    next(batches)
    state = feed.state()
    assert (state["epoch"], state["draws"]) == (0, 4)
    later = make(manifest).restore(state)
    assert [digest([batch]) for batch in later] == whole[1:]
    assert later.epoch == 1
    assert len(list(later)) == 3, "the restored position serves one iterator alone"


def test_a_state_of_another_feed_is_refused_and_says_what_differs(manifest):
    state = make(manifest).state()
    with pytest.raises(FeedError, match="seed"):
        make(manifest, seed=9).restore(state)
    with pytest.raises(FeedError, match="clip: "):
        make(manifest, clip=cf.Clip(frames=4)).restore(state)
    with pytest.raises(FeedError, match="not a state of a feed"):
        make(manifest).restore({"epoch": 1})
    with pytest.raises(FeedError, match="plan of epoch 0 differs"):
        make(manifest).restore({**state, "plan": "of another version"})
    with pytest.raises(FeedError, match="plan of epoch 1 differs"):
        make(manifest).restore({**state, "epoch": 1})


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"draws": -16}, "state draws=-16 must be a whole number of at least 0; restore the state that"),
        ({"draws": 10**9}, "state draws=1000000000 must be at most 12, the draws of epoch 0; restore"),
        ({"draws": 16}, "draws=16 must be at most 12"),
        ({"draws": "8"}, "draws='8' must be a whole number"),
        ({"draws": 8.0}, r"draws=8\.0 must be a whole number"),
        ({"draws": True}, "draws=True must be a whole number"),
        ({"epoch": -1}, "epoch=-1 must be a whole number"),
        ({"epoch": None}, "epoch=None must be a whole number"),
        ({"seed": "7"}, "seed='7' must be a whole number"),
        ({"plan": None}, "plan=None must be a text"),
        ({"settings": ["clip"]}, r"settings=\['clip'\] must be texts by name"),
        ({"settings": {"clip": 1}}, "settings={'clip': 1} must be texts by name"),
        ({"settings": {"between batches of the same videos": "0 ranks"}}, "'0 ranks' must be a number of ranks"),
        ({"quarantine": [3]}, r"quarantine=\[3\] must be a list of pairs"),
        ({"quarantine": None}, "quarantine=None must be a list of pairs"),
    ],
)
def test_a_state_with_a_changed_value_is_refused(manifest, values, message):
    feed = make(manifest)
    with pytest.raises(FeedError, match=message):
        feed.restore({**feed.state(), **values})
    assert feed.state() == make(manifest).state()


def test_a_state_at_the_end_of_an_epoch_is_the_start_of_the_next(manifest):
    feed = make(manifest)
    assert feed.restore({**feed.state(), "draws": 12}).epoch == 1


def test_short_videos_are_padded_and_the_mask_says_so(manifest):
    feed = make(manifest, clip=cf.Clip(frames=16, short="pad"), transforms=[])
    batch = feed[0]
    assert feed.spec.padded
    assert batch.valid[:, :12].all() and not batch.valid[:, 12:].any()
    assert (batch.clips[:, 12:] == 0).all() and (batch.clips[:, 1:12] != 0).all()


def test_evaluation_is_every_row_once_in_order_without_chance(manifest):
    sampler = cf.UniformLabels(bins=3)
    feed = make(manifest, sampler=sampler, transforms=[cf.Rotate(degrees=20), cf.Normalize()])
    val = feed.evaluation(manifest)
    first, second = list(val), list(val)
    assert ids_of(first) == [f"v{row}" for row in range(11)]
    assert digest(first) == digest(second)
    assert first[0].clips.dtype == np.float32, "Normalize stays"
    assert val.settings.clip.position == "center"
    assert (val.spec.target_mean, val.spec.target_scale) == (feed.spec.target_mean, feed.spec.target_scale)


def test_evaluation_keeps_the_class_order(manifest):
    feed = make(manifest, target="sick", classes=("yes", "no"))
    healthy = manifest.where("sick", ["no"])
    val = feed.evaluation(healthy)
    assert val.spec.classes == ("yes", "no")
    assert {int(target) for batch in val for target in batch.targets} == {1}


def test_evaluation_without_labels(manifest):
    feed = make(manifest)
    bare = cf.Manifest.from_table(manifest.table.select(["id", "path"]), root=manifest.root)
    with pytest.raises(ColumnError, match="age"):
        feed.evaluation(bare)
    batch = feed.evaluation(bare, labelled=False)[0]
    assert np.isnan(batch.targets).all() and (batch.weights == 0).all()


def test_balanced_classes_are_fed_half_and_half(manifest):
    feed = make(manifest, target="sick", sampler=cf.BalancedClasses())
    for batch in feed:
        if len(batch.ids) == 4:
            assert (batch.targets == 1).sum() == 2


def test_a_share_is_that_of_the_second_class(manifest):
    sampler = cf.BalancedClasses(proportion=0.25)
    for classes in (("yes", "no"), ("no", "yes")):
        batch = make(manifest, target="sick", classes=classes, sampler=sampler)[0]
        assert batch.targets.tolist().count(1) == 1


def test_spec_tells_a_model_what_it_gets(manifest):
    spec = make(manifest, transforms=[cf.Normalize()]).spec
    ages = [20.0 + row * row for row in range(11)]
    assert spec.clip_shape == (4, 16, 16, 1) and spec.dtype == np.float32 and spec.task == "regression"
    assert spec.target_mean == pytest.approx(np.mean(ages)) and spec.target_scale == pytest.approx(np.std(ages))


def test_the_summary_says_what_is_fed(manifest):
    assert "11 samples, regression of age from 20 to 120" in make(manifest).summary()
    assert "no 8, yes 3" in make(manifest, target="sick").summary()


def test_stats_count_clips_and_time(manifest):
    feed = make(manifest)
    list(feed)
    stats = feed.stats()
    assert (stats.clips, stats.batches, stats.workers) == (11, 3, 2)
    assert stats.bytes == 11 * 4 * 16 * 16 and min(stats.stages.values()) > 0


def test_a_bad_file_names_row_and_path(manifest):
    (manifest.root / "03.npy").write_bytes(b"\x93NUMPY is cut off")
    with pytest.raises(SourceError, match=r"row 3, 03\.npy"):
        list(make(manifest))
    (manifest.root / "03.npy").unlink()
    with pytest.raises(SourceError, match=r"row 3, 03\.npy"):
        list(make(manifest, workers=0))


@dataclass(frozen=True)
class Broken:
    def sample(self, rng, info):
        return {}

    def apply(self, frames, parameters):
        raise ZeroDivisionError("in a transform of the user's")


def test_an_error_in_a_users_transform_names_row_and_path(manifest):
    with pytest.raises(FeedError, match=r"row \d+, \d\d\.npy: ZeroDivisionError: in a transform") as caught:
        list(make(manifest, transforms=[Broken()]))
    assert isinstance(caught.value.__cause__, ZeroDivisionError)


def test_after_an_error_the_feed_can_be_used_again(manifest):
    good = (manifest.root / "03.npy").read_bytes()
    feed = make(manifest)
    (manifest.root / "03.npy").write_bytes(b"")
    with pytest.raises(SourceError):
        list(feed)
    (manifest.root / "03.npy").write_bytes(good)
    feed.restore(feed.state())
    num_batches = feed.state()["draws"] // 4
    assert digest(feed) == digest(make(manifest).batch(index, epoch=0) for index in range(num_batches, 3))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch_size": 0}, "batch_size = 0 must be a whole number of at least 1"),
        ({"batch_size": True}, "batch_size=True must"),
        ({"seed": -1}, "seed = -1 must be a whole number of at least 0"),
        ({"workers": -1}, "workers = -1 must be a whole number of at least 0, or auto"),
        ({"workers": "many"}, "workers = 'many' must"),
        ({"workers": cf.Workers}, r"workers=the class .* must be Workers\(...\)"),
        ({"workers": cf.Shard(rank=0, world_size=1)}, r"workers=a Shard must be Workers\(...\)"),
        ({"inputs": {"weight": "a"}}, r"inputs={'weight': 'a'} must be Inputs\(...\)"),
        ({"shard": 2}, r"shard=2 must be a Shard, such as Shard\(rank=0, world_size=2\)"),
        ({"clip": 16}, r"clip=16 must be a Clip, such as Clip\(frames=16\)"),
        ({"frame": (56, 56, 3)}, r"frame=\(56, 56, 3\) must be a Frame"),
        ({"sampler": "BalancedClasses"}, r"sampler='BalancedClasses' is not a sampler; give one such as"),
        ({"sampler": cf.Natural}, "is not a sampler"),
        ({"transforms": "Rotate"}, "transforms='Rotate' must be a list of transforms"),
        ({"transforms": [cf.Rotate]}, r"transforms\[0\] is the class Rotate; give an instance, Rotate\(...\)"),
        ({"transforms": [ct.MixUp()]}, r"transforms\[0\] is MixUp.*mixes batches; pass it as mixing=MixUp"),
        ({"on_error": "skip"}, "on_error='skip' is not a choice"),
        ({"max_bad": 2}, "max_bad = 2 must be a share"),
    ],
)
def test_settings_are_checked(manifest, changes, message):
    with pytest.raises(SettingError, match=message):
        make(manifest, **changes)


@pytest.mark.parametrize(
    ("make_settings", "message"),
    [
        (lambda: cf.Workers(backend="threads"), "backend='threads' is not a choice; did you mean 'thread'"),
        (lambda: cf.Workers(timeout_seconds=0), "timeout_seconds = 0 must be more than 0"),
        (lambda: cf.Inputs(covariates="n_words"), "covariates='n_words' must be a list of columns"),
        (lambda: cf.Inputs(geometry="share"), "did you mean 'shared'"),
        (lambda: cf.ClipsPerVideo(count=0), "clips_per_video = 0 must"),
        (lambda: cf.ClipsPerVideo(count=2, interleave="no"), "interleave='no'\\) must be True or False"),
        (lambda: cf.Shard(rank=2, world_size=2), "rank=2 must be at least 0 and less than world_size=2"),
    ],
)
def test_groups_of_settings_are_checked(make_settings, message):
    with pytest.raises(SettingError, match=message):
        make_settings()


def test_a_feed_of_something_else_names_what_it_needs(manifest):
    parts = manifest.split(val=0.2, test=0.2, group=None)
    for other in ("studies.parquet", parts):
        with pytest.raises(SettingError, match=r"needs a Manifest, found ('st.*'|a Parts): use Manifest.read\(path\)"):
            make(other)
    with pytest.raises(SettingError, match="needs a Manifest, found 'val'"):
        make(manifest).evaluation("val")
    with pytest.raises(SettingError, match="task='classification' is not a task; give 'binary'"):
        manifest.with_task("age", "classification")
    with pytest.raises(ColumnError, match="'age'"):
        manifest.with_task("aeg", "regression")


def test_a_feed_is_closed_at_the_end_of_a_block(manifest):
    with make(manifest) as feed:
        batches = iter(feed)
        next(batches)
    with pytest.raises(FeedError):
        next(batches)


def test_a_single_value_is_the_first_field_of_its_group(manifest):
    feed = make(manifest, workers=0, clips_per_video=2, batch_size=4)
    assert feed.settings.workers == cf.Workers(count=0)
    assert feed.settings.clips_per_video == cf.ClipsPerVideo(count=2)
    assert cf.ClipsPerVideo(count=1, interleave=True) == cf.ClipsPerVideo()


def test_a_feed_takes_each_setting_by_name():
    """The keywords of Feed are written out for editors and type checkers; they are those of its settings."""
    keywords = list(inspect.signature(cf.Feed).parameters.values())[1:]
    settings = {each.name: each for each in fields(FeedSettings)}
    assert {each.name for each in keywords} == set(settings) and len(keywords) == 18
    for keyword in keywords:
        setting, default = settings[keyword.name], keyword.default
        if setting.default is MISSING and setting.default_factory is MISSING:
            assert default is inspect.Parameter.empty
        elif keyword.name not in ("sampler", "clips_per_video", "workers"):  # None, and values of a first field
            assert default == (setting.default_factory() if setting.default is MISSING else setting.default)


def test_a_state_compares_what_decides_bytes_alone(manifest):
    feed = make(manifest)
    runtime = {"workers": cf.Workers(count=0, prefetch=1), "max_bad": 0.5, "return_parameters": True}
    assert make(manifest, **runtime).restore(feed.state()).state() == feed.state()
    with pytest.raises(FeedError, match="on_error"):
        make(manifest, on_error="replace").restore(feed.state())


def test_a_missing_column_names_the_nearest(manifest):
    with pytest.raises(ColumnError, match="'age'"):
        make(manifest, target="aeg")


def test_no_rows(manifest):
    with pytest.raises((TableError, LabelError), match=r"rows|age"):
        make(cf.Manifest.from_table(manifest.table.slice(0, 0), root=manifest.root))


def test_ctrl_c_ends_at_once_and_leaves_no_thread(manifest):
    gc.collect()  # feeds of other tests
    before = set(threading.enumerate())
    feed = make(manifest)
    with pytest.raises(KeyboardInterrupt):
        for _ in feed:
            raise KeyboardInterrupt
    gc.collect()
    assert set(threading.enumerate()) <= before


def test_an_epoch_begins_with_what_was_made_at_the_end_of_the_one_before(manifest):
    feed = make(manifest, workers=2)
    expected = [[feed.batch(index, epoch=epoch) for index in range(len(feed))] for epoch in range(3)]
    for epoch in range(3):
        batches = list(feed)
        assert feed._epochs._prefetcher is not None
        assert len(feed._epochs._prefetcher.pending) > 0
        assert feed._epochs._prefetcher.epoch == epoch + 1
        for got, want in zip(batches, expected[epoch], strict=True):
            np.testing.assert_array_equal(got.clips, want.clips)
    begun = feed._epochs._prefetcher.worker_pool._pool
    feed.set_epoch(0)
    assert feed._epochs._prefetcher is None
    with pytest.raises(RuntimeError, match="shutdown"):
        begun.submit(len, "")
    np.testing.assert_array_equal(next(iter(feed)).clips, expected[0][0].clips)


def test_an_evaluation_begins_nothing_past_its_end(manifest):
    feed = make(manifest, workers=2).evaluation(manifest)
    begun = []
    submit = ThreadPool.submit

    def noting(worker_pool, draws, buffer):
        begun.extend(draws.values())
        return submit(worker_pool, draws, buffer)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(ThreadPool, "submit", noting)
        for _ in range(2):
            assert [len(batch.ids) for batch in feed] == [4, 4, 3]
    assert [(draw.epoch, draw.position) for draw in begun] == [(0, place) for _ in range(2) for place in range(11)]


def test_the_workers_end_with_the_feed(manifest):
    gc.collect()
    time.sleep(0.1)  # threads of other tests' feeds
    before = {*threading.enumerate()}  # those of other tests may end meanwhile
    feed = make(manifest, workers=2)
    list(feed)
    assert len({*threading.enumerate()} - before) == 2
    del feed
    gc.collect()
    deadline = time.monotonic() + 10
    while {*threading.enumerate()} - before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert {*threading.enumerate()} <= before


def test_a_backend_by_trial_is_chosen_once_and_changes_no_byte(manifest, caplog):
    caplog.set_level("INFO")
    feed = make(manifest, workers=cf.Workers(count=2, backend="auto"))
    assert feed.choice is None and "by a trial" in feed.summary()
    assert digest(feed) == digest(make(manifest))
    choice = feed.choice
    assert choice.backend in ("thread", "process") and "backend='auto' chose 2 " in caplog.text
    list(feed)
    assert feed.choice is choice
    assert {"thread": "2 threads", "process": "2 processes"}[choice.backend] in feed.summary()


def test_an_evaluation_keeps_constants_for_each_channel(manifest):
    constants = cf.Normalize(mode="standard", mean=(1, 2, 3), std=(4, 5, 6))
    feed = make(manifest, transforms=[cf.Rotate(degrees=9), constants], frame=cf.Frame(height=16, width=16, channels=3))
    assert feed.evaluation(manifest).settings.transforms == (constants,)
