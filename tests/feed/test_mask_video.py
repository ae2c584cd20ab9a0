"""A mask video follows its video in time and place, by the nearest pixel, and nothing else touches it."""

from functools import partial

import numpy as np
import pyarrow as pa
import pytest
from epoch_digests import digest, epochs

import cinefeed as cf
from cinefeed.core.errors import ColumnError, SettingError, SourceError, TableError
from cinefeed.feed.inputs import find_masks
from cinefeed.feed.mask import read_masks
from cinefeed.feed.memory_budget import decoder_bytes
from cinefeed.testing import check_feed
from cinefeed.testing.videos import write_video
from cinefeed.transforms import CutMix, CutOut, Elastic, Jitter, MixUp, RandomOrder, Sometimes, Speed
from cinefeed.video.metadata import Region

INTENSITY = [cf.Brightness(factor=0.3), cf.Contrast(factor=0.3), CutOut(size=0.4)]


def with_masks(manifest, masks, *, column="mask_path"):
    """Return the manifest with a mask of each row, written beside the videos."""
    names = [f"masks/{row:02}.npy" for row in range(len(manifest))]
    (manifest.root / "masks").mkdir(exist_ok=True)
    for name, mask in zip(names, masks, strict=True):
        np.save(manifest.root / name, mask)
    return cf.Manifest(manifest.table.append_column(column, pa.array(names)), root=manifest.root)


@pytest.fixture
def pairs(manifest):
    """Videos of two levels in patches of 4 x 4 pixels, and masks of 0 and 1 that say where they are bright."""
    rng = np.random.default_rng(1)
    masks = []
    for row in range(11):
        mask = np.kron(rng.integers(0, 2, (12, 5, 6)), np.ones((4, 4))).astype(np.uint8)
        np.save(manifest.root / f"{row:02}.npy", mask * np.uint8(255))
        masks.append(mask)
    return with_masks(manifest, masks)


@pytest.fixture
def alike(manifest):
    """Masks that are the videos themselves: every pixel of frame f of row r is 20 r + f."""
    return with_masks(manifest, [np.load(manifest.path_of(row)) for row in range(len(manifest))])


def make(manifest, **changes):
    settings = {
        "target": "age",
        "clip": cf.Clip(frames=4, stride=2),
        "frame": cf.Frame(height=20, width=24, channels=1),
        "inputs": cf.Inputs(mask="mask_path"),
        "batch_size": 4,
        "seed": 7,
        "workers": 0,
    }
    return cf.Feed(manifest, **{**settings, **changes})


def test_what_a_batch_holds(pairs):
    feed = make(pairs)
    batch = feed[0]
    assert batch.masks.dtype == np.uint8 and batch.masks.shape == (4, 4, 20, 24, 1)
    assert feed.spec.masks and list(batch.inputs(padded=False)) == ["clips", "masks"]
    assert "with masks" in feed.summary()
    without = make(pairs, inputs=cf.Inputs(mask=None))
    assert without[0].masks.size == 0 and list(without[0].inputs(padded=False)) == ["clips"]
    assert not without.spec.masks and (without[0].clips == batch.clips).all()


@pytest.mark.parametrize(
    "transforms",
    [
        [],
        [cf.Flip(axis="both")],
        [cf.Shift(pixels=(3, 3))],
        [cf.Rotate(degrees={90, 180, 270})],
        [cf.Rotate(degrees=(90, 90)), cf.Brightness(factor=(1, 1)), cf.Shift(pixels=(-5, -5))],
    ],
    ids=str,
)
@pytest.mark.parametrize("size", [(20, 24), (24, 24), (12, 14)])
def test_whole_pixels_are_exact(pairs, transforms, size):
    """A mask is its video at half of full brightness: nothing is blurred by such moves, so both agree everywhere."""
    frame = cf.Frame(height=size[0], width=size[1], channels=1, fit="none")
    for batch in make(pairs, transforms=transforms, frame=frame):
        assert (batch.clips == 255 * batch.masks).all() and batch.masks.any()


GEOMETRY = [cf.Rotate(degrees=40), Elastic(pixels=2), cf.Scale(factor=0.4), cf.Shift(pixels=4)]
DARKER = cf.Brightness(factor=(0.7, 0.9))  # black stays black, and nothing is cut off at the top


@pytest.mark.parametrize(
    "transforms",
    [
        GEOMETRY,
        [DARKER, *GEOMETRY],
        [*GEOMETRY[:2], DARKER, *GEOMETRY[2:]],
        [RandomOrder(transforms=(*GEOMETRY, DARKER)), Sometimes(transform=cf.Flip())],
    ],
    ids=["fused", "after", "between", "chosen"],
)
@pytest.mark.parametrize(
    "frame",
    [
        cf.Frame(height=48, width=48, channels=1),
        cf.Frame(height=30, width=90, channels=1, fit="pad"),
        cf.Frame(height=33, width=31, channels=1, fit="stretch"),
    ],
    ids=lambda frame: frame.fit,
)
def test_any_geometry_moves_both_alike(pairs, transforms, frame):
    """Where interpolation saw pixels of one kind alone, the mask says which; that is most of a frame."""
    sure = total = 0
    for batch in make(pairs, transforms=transforms, frame=frame):
        for clip, mask in zip(batch.clips, batch.masks, strict=True):
            bright = clip.max()
            assert (mask[clip == bright] == 1).all() and (mask[clip == 0] == 0).all()
            sure += int(((clip == bright) | (clip == 0)).sum())
            total += clip.size
    assert sure > 0.5 * total


def test_what_a_second_interpolation_cannot_see_is_no_mask(pairs):
    """Moved out of the frame, changed, and moved back: what had been cut off stays so."""
    there_and_back = [cf.Shift(pixels=(8, 8)), cf.Brightness(factor=(1, 1)), cf.Shift(pixels=(-8, -8))]
    batch = make(pairs, transforms=there_and_back)[0]
    assert not batch.masks[:, :, 12:].any() and not batch.masks[:, :, :, 16:].any()
    assert (batch.clips == 255 * batch.masks).all() and batch.masks.any()
    fused = make(pairs, transforms=[there_and_back[0], there_and_back[2]])[0]
    assert fused.masks[:, :, 12:].any()


@pytest.mark.parametrize(
    "changes",
    [
        {"transforms": [Speed(factor=0.5), Jitter(frames=2)]},
        {"clip": cf.Clip(frames=16, short="pad")},
        {"clips_per_video": 2},
        {"clips_per_video": cf.ClipsPerVideo(count=2, interleave=True)},
    ],
    ids=str,
)
def test_the_frames_are_those_of_the_clip(alike, changes):
    for batch in make(alike, **changes):
        assert (batch.clips == batch.masks).all()
        assert (batch.masks[batch.valid] > 0).any()


def test_intensity_leaves_labels_alone(alike):
    plain, changed = make(alike)[0], make(alike, transforms=[*INTENSITY, cf.Normalize()])[0]
    assert (changed.masks == plain.masks).all() and changed.clips.dtype == np.float32


@pytest.mark.parametrize(
    ("backend", "interleave"),
    [("thread", False), ("thread", True), ("process", True), pytest.param("process", False, marks=pytest.mark.slow)],
)
def test_the_same_bytes(pairs, backend, interleave):
    make_one = partial(
        make,
        pairs,
        transforms=[*GEOMETRY, *INTENSITY],
        clips_per_video=cf.ClipsPerVideo(count=2, interleave=interleave),
    )
    expected = epochs(make_one())
    assert epochs(make_one(workers=cf.Workers(backend=backend, count=2))) == expected
    other = next(iter(make_one(seed=8)))
    assert digest(other.masks) != digest(make_one()[0].masks)


def test_a_checked_feed(pairs):
    check_feed(make(pairs, transforms=GEOMETRY))
    check_feed(
        make(pairs, clip=cf.Clip(frames=16, short="pad"), target="mask_path", shard=cf.Shard(rank=1, world_size=2))
    )


@pytest.mark.slow
def test_a_feed_that_is_made_again(pairs):
    make_one = partial(make, pairs, transforms=GEOMETRY, mixing=CutMix(), target="sick", return_parameters=True)
    check_feed(make_one(), make=make_one)


def test_masks_as_targets(pairs):
    feed = make(pairs, target="mask_path")
    batch = feed[0]
    assert feed.spec.task == "mask" and batch.targets is batch.masks and (batch.weights == 1).all()
    assert list(batch.inputs(padded=False)) == ["clips"] == list(batch.row(1).inputs(padded=False))
    assert "the masks as targets" in feed.summary()
    evaluation = feed.evaluation(pairs)
    assert evaluation.spec.task == "mask" and evaluation[0].targets.shape == (4, 4, 20, 24, 1)
    unlabelled = cf.Manifest(pairs.table.drop_columns(["mask_path"]), root=pairs.root)
    blind = feed.evaluation(unlabelled, labelled=False)
    assert blind[0].masks.size == 0 and np.isnan(blind[0].targets).all() and not blind.spec.masks
    assert make(pairs).evaluation(pairs, labelled=False)[0].masks.size


def test_cutmix_cuts_masks_as_it_cuts_clips(pairs):
    batch = make(pairs, mixing=CutMix(), target="sick")[0]
    assert (batch.clips == 255 * batch.masks).all()
    assert (batch.masks != make(pairs, target="sick")[0].masks).any()
    with pytest.raises(SettingError, match=r"MixUp.*would blend the numbers of two classes in a mask.*CutMix"):
        make(pairs, mixing=MixUp())


def test_torch_gets_masks_in_the_order_of_the_clips(pairs):
    torch_adapter = pytest.importorskip("cinefeed.adapters.torch")
    loader = torch_adapter.FeedLoader(make(pairs), layout="BTCHW", pin_memory=False)
    inputs, _, _ = next(iter(loader))
    assert inputs["masks"].shape == inputs["clips"].shape == (4, 4, 1, 20, 24)
    loader = torch_adapter.FeedLoader(make(pairs, target="mask_path"), layout="BCTHW", pin_memory=False)
    inputs, targets, _ = next(iter(loader))
    assert list(inputs) == ["clips"] and targets.shape == (4, 1, 4, 20, 24)


def test_the_budget_counts_masks(pairs):
    buffer, decoders = 2 * 4 * 4 * 20 * 24 + 4 * 4, 2 * decoder_bytes(pairs.table, frames=4)
    feed = make(pairs, workers=cf.Workers(count=0, memory=decoders + 3 * buffer))
    assert (feed.memory_budget.decoders, feed.memory_budget.buffer_bytes, feed.memory_budget.buffers) == (
        decoders,
        buffer,
        3,
    )


def test_millimetres(pairs):
    table = pairs.table
    for name, value in (("spacing_down_mm", 2.0), ("spacing_across_mm", 1.0)):
        table = table.append_column(name, pa.array([value] * 11))
    manifest = cf.Manifest(table, root=pairs.root)
    # Metadata without a size is ignored; a scan would have stored it.
    scanned = cf.Manifest.scan(pairs.root, progress=False)
    table = scanned.where("path", [f"{row:02}.npy" for row in range(11)]).table
    for name, value in (("spacing_down_mm", 2.0), ("spacing_across_mm", 1.0)):
        table = table.set_column(table.schema.get_field_index(name), name, pa.array([value] * 11))
    table = table.append_column("mask_path", pa.array([f"masks/{row:02}.npy" for row in range(11)]))
    frame = cf.Frame(height=40, width=24, channels=1, spacing_mm=1.0)
    feed = make(cf.Manifest(table, root=manifest.root), target=None, frame=frame)
    for batch in feed:
        assert (batch.masks[batch.clips == 255] == 1).all() and (batch.masks[batch.clips == 0] == 0).all()
        assert np.ptp(batch.masks.reshape(len(batch.ids), 4, 5, 8, 6, 4), axis=(3, 5)).max() == 0


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (np.zeros((11, 20, 24), np.uint8), r"its mask masks/00\.npy: it has 11 frames of 20 x 24, the video 12 frames"),
        (np.zeros((12, 24, 20), np.uint8), r"it has 12 frames of 24 x 20, the video 12 frames of 20 x 24"),
        (np.full((12, 20, 24), 0.5, np.float32), r"it holds 0\.5, labels are whole numbers from 0 to 255"),
        (np.full((12, 20, 24), 300, np.uint16), r"it holds 300, labels are"),
        (np.full((12, 20, 24), np.nan), r"it holds nan, labels are"),
        (np.arange(12 * 20 * 24 * 3, dtype=np.uint8).reshape(12, 20, 24, 3), r"it holds colours"),
    ],
)
def test_files_that_are_no_masks(manifest, wrong, message):
    feed = make(with_masks(manifest, [wrong] * 11), sampler=cf.Natural(shuffle=False))
    with pytest.raises(SourceError, match=rf"row 0, 00\.npy: its mask masks/00\.npy: .*{message.split(': ')[-1]}"):
        feed[0]


@pytest.mark.parametrize("backend", ["thread", pytest.param("process", marks=pytest.mark.slow)])
def test_a_mask_that_is_missing_is_an_error_or_replaced(pairs, backend):
    (pairs.root / "masks" / "03.npy").unlink()
    with pytest.raises(SourceError, match=r"row 3, 03\.npy: its mask masks/03\.npy: "):
        list(make(pairs, workers=cf.Workers(backend=backend, count=1)))
    feed = make(pairs, workers=cf.Workers(backend=backend, count=1), on_error="replace", max_bad=0.1)
    assert "v3" not in {name for batch in feed for name in batch.ids} and len(feed.stats().skipped) == 1


def test_private_manifests_name_no_path(pairs):
    (pairs.root / "masks" / "00.npy").unlink()
    with pytest.raises(SourceError) as error:
        make(pairs.as_private(), sampler=cf.Natural(shuffle=False))[0]
    assert "row 0, v0: its mask v0: " in str(error.value) and ".npy" not in str(error.value)


def test_settings_that_do_not_serve(pairs):
    with pytest.raises(ColumnError, match="mask='mask_paht': there is no such column; did you mean 'mask_path'"):
        make(pairs, inputs=cf.Inputs(mask="mask_paht"))
    with pytest.raises(ColumnError, match="'age' is a column of double, paths of mask videos are needed"):
        make(pairs, inputs=cf.Inputs(mask="age"))
    with pytest.raises(SettingError, match="cannot be one of several targets"):
        make(pairs, target=["age", "mask_path"])
    with pytest.raises(SettingError, match="a covariate cannot be called 'masks'"):
        make(
            cf.Manifest(pairs.table.append_column("masks", pairs.column("age")), root=pairs.root),
            inputs=cf.Inputs(covariates=["masks"], mask="mask_path"),
        )
    table = pairs.table.set_column(
        pairs.table.schema.get_field_index("mask_path"), "mask_path", pa.array([None, *["masks/01.npy"] * 10])
    )
    with pytest.raises(TableError, match=r"1 of 11 rows has no mask in 'mask_path': row 0, 00\.npy; leave them out"):
        make(cf.Manifest(table, root=pairs.root))
    columns = {"study": [f"s{row // 2}" for row in range(10)], "view": ["a", "b"] * 5}
    table = pairs.take(range(10)).table.drop_columns(["age", "sick", "mask_path"])
    for name, values in columns.items():
        table = table.append_column(name, pa.array(values))
    pivoted = cf.Manifest(table, root=pairs.root).pivot(by="view", within="study")
    with pytest.raises(SettingError, match="mask='study' is for rows of one video, here a row holds a, b"):
        make(pivoted, target=None, inputs=cf.Inputs(mask="study"))


def test_a_state_knows_of_masks(pairs):
    assert make(pairs).state()["settings"]["inputs.mask"] == "'mask_path'"
    assert make(pairs, inputs=cf.Inputs(mask=None)).state()["settings"]["inputs.mask"] == "None"


def test_labels_in_other_files(manifest, tmp_path):
    """Whole numbers of any type, three equal channels, a grey lossless video, one in limited range, and a region."""
    labels = np.random.default_rng(3).integers(0, 5, (12, 20, 24))
    indices = [np.array([3, 0, 3]), np.array([11, 5, 5])]
    expected = [labels[each] for each in indices]
    metadata = cf.probe(manifest.path_of(0))

    def read(path, region=None, indices=indices):
        table = manifest.table.append_column("m", pa.array([str(path)] * 11))
        rows = find_masks(cf.Manifest(table, root=manifest.root), "m")
        masks = read_masks(rows, 0, indices, video=metadata, region=region)
        return [np.stack([frame[0] for frame in planes.frames]) for planes in masks]

    def same(masks, expected=expected):
        return all((a == b).all() and a.dtype == np.uint8 for a, b in zip(masks, expected, strict=True))

    for dtype in (np.uint8, np.uint16, np.int64, np.float32):
        np.save(tmp_path / "m.npy", labels.astype(dtype))
        assert same(read(tmp_path / "m.npy"))
    np.save(tmp_path / "m.npy", np.repeat(labels.astype(np.uint8)[..., None], 3, axis=3))
    assert same(read(tmp_path / "m.npy"))
    assert same(read(tmp_path / "m.npy", Region(4, 2, 20, 12, "2d")), [each[:, 2:12, 4:20] for each in expected])
    np.save(tmp_path / "m.npy", labels > 2)
    assert same(read(tmp_path / "m.npy"), [255 * (each > 2) for each in expected])
    grey = write_video(tmp_path / "m.mkv", labels.astype(np.uint8), codec="ffv1", pixel_format="gray")
    assert same(read(grey))
    lossless = {"pixel_format": "gray", "options": {"qp": "0"}, "full_range": True}
    compiled = write_video(tmp_path / "m.mp4", labels.astype(np.uint8), **lossless)  # read by compiled code
    assert same(read(compiled))
    for number, each in enumerate(indices):  # one clip alone, and so its frames as they lie
        assert same(read(compiled, indices=[each]), [expected[number]])
    limited = write_video(tmp_path / "n.mkv", (255 * (labels > 2)).astype(np.uint8), codec="ffv1")
    assert same(read(limited), [255 * (each > 2) for each in expected])
