"""Every transform, sampler option and feed setting can be written in TOML, and comes back the same."""

import tomllib
from dataclasses import MISSING, dataclass, fields, is_dataclass, replace

import numpy as np
import pyarrow as pa
import pytest

from cinefeed import ClipsPerVideo, Manifest, transforms
from cinefeed.config import parse, to_table, to_toml
from cinefeed.core.errors import SettingError
from cinefeed.data.sampling import BalancedClasses, Natural, UniformLabels
from cinefeed.feed.preview import sheet
from cinefeed.training.setup import build_feed
from cinefeed.transforms import (
    Blur,
    ClipPercentiles,
    CutOut,
    Elastic,
    Equalize,
    FrameDrop,
    Gamma,
    Jitter,
    Noise,
    OneOf,
    Pad,
    PhaseShift,
    RandomOrder,
    RandomResizedCrop,
    Resize,
    Reverse,
    Rotate,
    Saturation,
    Scale,
    SectorMask,
    Shear,
    Shift,
    Sometimes,
    Speckle,
    Speed,
    Window,
)

WRITTEN = """
[data]
manifest = "m.parquet"
target = "age"
split = {group = "patient"}

[frame]
height = 64
width = 48
channels = 1

[train]
out = "runs/a"
"""

CATALOGUE = """
transforms = [
    {name = "Rotate", degrees = [0, 90, 180]},
    {name = "Rotate", degrees = {one_of = [0, 180]}},
    {name = "Shift", mm = 5},
    {name = "Scale", factor = [0.9, 1.2]},
    {name = "Shear", degrees = 10, axis = "both"},
    {name = "Flip", axis = "vertical", probability = 0.25},
    {name = "RandomResizedCrop", area = [0.6, 1.0], aspect = 1},
    {name = "Pad", fraction = 0.1},
    {name = "Resize", height = 60, width = 50},
    {name = "Elastic", pixels = [1, 3], points = 5},
    {name = "Brightness", factor = 0.2},
    {name = "Contrast", factor = 0.2},
    {name = "Gamma", gamma = 0.2},
    {name = "Window", level = [40, 60], width = 400},
    {name = "ClipPercentiles", low = 0, high = 99.5},
    {name = "Equalize", limit = 2},
    {name = "Saturation", factor = 0.3},
    {name = "Noise", std = 0.1, fresh = "clip"},
    {name = "Speckle", std = 0.1},
    {name = "Blur", sigma = 2},
    {name = "CutOut", size = 0.3, count = 2},
    {name = "SectorMask", degrees = 80, apex = [0.5, -0.1], near = 0.1},
    {name = "Speed", factor = 0.3},
    {name = "Reverse"},
    {name = "Jitter", frames = 1},
    {name = "FrameDrop", share = 0.2},
    {name = "PhaseShift", fraction = 0.5},
    {name = "Sometimes", probability = 0.3, transform = {name = "RandomOrder", transforms = [
        {name = "Blur", sigma = 1}, {name = "OneOf", weights = [2, 1], transforms = [
            {name = "Gamma", gamma = 0.1}, {name = "CutOut", size = 0.2}]}]}},
    {name = "Normalize", mode = "standard", mean = [1, 2, 3], std = 4, dtype = "float16"},
]
"""


def settings_of(text):
    return parse(tomllib.loads(text + WRITTEN))


def names_in(written):
    """Every name of a table of transforms, at any depth."""
    for table in written:
        yield table["name"]
        yield from names_in([*table.get("transforms", []), *([table["transform"]] if "transform" in table else [])])


def test_the_whole_catalogue_is_written_and_read_back():
    settings = settings_of(CATALOGUE)
    kinds = {name for name in transforms.__all__ if is_dataclass(getattr(transforms, name))} - {
        "MixUp",
        "CutMix",
        "Call",
    }
    assert set(names_in(tomllib.loads(CATALOGUE)["transforms"])) == kinds
    text = to_toml(settings)
    assert parse(tomllib.loads(text)) == settings
    assert to_toml(parse(tomllib.loads(text))) == text


def test_what_is_read_is_what_python_says():
    settings = settings_of(CATALOGUE)
    assert settings.transforms[:-1] == (
        Rotate(degrees=(0, 90, 180)),
        Rotate(degrees={0, 180}),
        Shift(mm=5),
        Scale(factor=(0.9, 1.2)),
        Shear(degrees=10, axis="both"),
        transforms.Flip(axis="vertical", probability=0.25),
        RandomResizedCrop(area=(0.6, 1.0), aspect=1),
        Pad(fraction=0.1),
        Resize(height=60, width=50),
        Elastic(pixels=(1, 3), points=5),
        transforms.Brightness(factor=0.2),
        transforms.Contrast(factor=0.2),
        Gamma(gamma=0.2),
        Window(level=(40, 60), width=400),
        ClipPercentiles(low=0, high=99.5),
        Equalize(limit=2),
        Saturation(factor=0.3),
        Noise(std=0.1, fresh="clip"),
        Speckle(std=0.1),
        Blur(sigma=2),
        CutOut(size=0.3, count=2),
        SectorMask(degrees=80, apex=(0.5, -0.1), near=0.1),
        Speed(factor=0.3),
        Reverse(),
        Jitter(frames=1),
        FrameDrop(share=0.2),
        PhaseShift(fraction=0.5),
        Sometimes(
            transform=RandomOrder(
                transforms=(Blur(sigma=1), OneOf(transforms=(Gamma(gamma=0.1), CutOut(size=0.2)), weights=(2, 1)))
            ),
            probability=0.3,
        ),
    )
    assert settings.transforms[-1] == transforms.Normalize(mode="standard", mean=(1, 2, 3), std=4, dtype="float16")


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ('{name = "Blurr", sigma = 1}', r"\[transforms\] name = 'Blurr' is not known; did you mean 'Blur'"),
        ('{name = "Blur", sigmas = 1}', r"\[transforms: Blur\] sigmas is not a setting; did you mean 'sigma'"),
        ('{name = "Blur"}', r"\[transforms: Blur\] sigma is missing"),
        ('{name = "Blur", sigma = -1}', r"\[transforms: Blur\] sigma = -1.0 must not be negative"),
        ('{name = "Rotate", degrees = {any = [1]}}', r"degrees = .* must be a number or .* or \{one_of = \[...\]\}"),
        ('{name = "Rotate", degrees = {one_of = ["x"]}}', r"\[transforms: Rotate\] degrees"),
        ('{name = "OneOf"}', r"\[transforms: OneOf\] transforms is missing"),
        ('{name = "OneOf", transforms = []}', r"\[transforms: OneOf\] OneOf takes one or more transforms"),
        ('{name = "OneOf", transforms = {name = "Blur"}}', r"must be a list, each a table with the name of a"),
        (
            '{name = "OneOf", transforms = ["Blur"]}',
            "transforms: OneOf = 'Blur' must be a section: write",
        ),
        (
            '{name = "OneOf", transforms = [{name = "Rotat"}]}',
            r"\[transforms: OneOf\] name = 'Rotat' .* did you mean 'Rotate'",
        ),
        (
            '{name = "Sometimes", transform = {name = "RandomOrder", transforms = [{name = "Noise", sdt = 1}]}}',
            r"\[transforms: Sometimes: RandomOrder: Noise\] sdt .* did you mean 'std'",
        ),
        ('{name = "MixUp"}', r"\[transforms\] MixUp mixes the clips of a batch: write it as \[feed.mixing\]"),
        ('{name = "Compose"}', r"\[transforms\] name = 'Compose' is not known"),
    ],
)
def test_a_wrong_transform_is_named(written, message):
    with pytest.raises(SettingError, match=message):
        settings_of(f"transforms = [{written}]")


@dataclass(frozen=True)
class Mine:
    gain: float = 1.0

    def sample(self, rng, info):
        return {}

    def apply(self, frames, parameters):
        return frames.copy()


class Plain:
    sample, apply = Mine.sample, Mine.apply


def test_a_transform_of_ones_own_is_written_by_its_fields_or_refused():
    settings = settings_of("")
    assert to_table(replace(settings, transforms=(Mine(gain=2.0),)))["transforms"] == [{"name": "Mine", "gain": 2.0}]
    with pytest.raises(SettingError, match="cannot be written as TOML; make it a dataclass"):
        to_toml(replace(settings, transforms=(Plain(),)))


SAMPLERS = {
    Natural: {"shuffle": False},
    BalancedClasses: {
        "strength": 0.5,
        "length": 40,
        "max_repeats": 3,
        "group": "patient",
        "per_batch": False,
        "by": "draws",
        "cap": 4.0,
        "proportion": {"a": 0.25, "b": 0.75},
        "separator": ";",
    },
    UniformLabels: {
        "strength": 0.5,
        "length": "max_count",
        "max_repeats": 3,
        "group": "patient",
        "per_batch": False,
        "by": "draws",
        "cap": 4.0,
        "bins": [0.0, 1.0, 2.5],
        "smoothing": 2.0,
    },
}


@pytest.mark.parametrize("kind", SAMPLERS, ids=lambda kind: kind.__name__)
def test_every_option_of_a_sampler_is_written_and_read_back(kind):
    assert set(SAMPLERS[kind]) == {each.name for each in fields(kind)}
    for name, value in SAMPLERS[kind].items():
        default = next(each.default for each in fields(kind) if each.name == name)
        assert default is not MISSING and (name == "by" or value != default)
    table = to_table(settings_of("")) | {"sampler": {"name": kind.__name__, **SAMPLERS[kind]}}
    settings = parse(table)
    assert type(settings.sampler) is kind
    assert to_table(settings)["sampler"] == table["sampler"]
    assert parse(tomllib.loads(to_toml(settings))) == settings
    weights = {"name": kind.__name__, "by": "weights", "cap": 2}
    if kind is not Natural:
        assert parse(table | {"sampler": weights}).sampler == kind(by="weights", cap=2.0)
    with pytest.raises(SettingError, match=rf"\[sampler: {kind.__name__}\] .*did you mean"):
        parse(table | {"sampler": {"name": kind.__name__, next(iter(SAMPLERS[kind])) + "s": 1}})


MIXED = "feed = {inputs = {mask = 'outline'}, mixing = {name = 'CutMix', alpha = 0.5, regression = 'blend'}}"
FEED = """
[feed]
seed = 3
workers = 2
drop_last = true
clips_per_video = {count = 2, interleave = true}
inputs = {views = ['2ch', '4ch'], stack = true, geometry = 'apart'}
"""


def test_the_settings_of_a_feed_are_written_and_read_back():
    settings = settings_of(FEED)
    assert parse(tomllib.loads(to_toml(settings))) == settings
    assert settings.feed.inputs.views == ("2ch", "4ch")
    assert settings.feed.workers.count == 2 and settings.feed.drop_last
    assert {"views", "mask"}.isdisjoint(to_table(settings_of(""))["feed"]["inputs"])
    settings = settings_of(MIXED)
    assert parse(tomllib.loads(to_toml(settings))) == settings
    assert settings.feed.mixing == transforms.CutMix(alpha=0.5, regression="blend")
    assert settings.feed.inputs.mask == "outline"


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ("clips_per_video = 0", "clips_per_video = 0 must be a whole number of at least 1"),
        ("clips_per_video = 3", "batch_size = 16 does not hold whole videos of clips_per_video = 3"),
        ("clip_per_video = 2", "clip_per_video is not a setting; did you mean 'clips_per_video'"),
        ("inputs = {geometry = 'share'}", "geometry = 'share' is not a choice; did you mean 'shared'"),
        ("mixing = {name = 'MixUpp'}", r"name = 'MixUpp' is not known; did you mean 'MixUp'"),
        ("mixing = {name = 'MixUp', alfa = 1}", r"alfa is not a setting; did you mean 'alpha'"),
        ("inputs = {views = 4}", "views = 4 must be a list, each a text"),
    ],
)
def test_a_wrong_setting_of_a_feed_is_named(written, message):
    with pytest.raises(SettingError, match=r"\[feed(\.mixing(: MixUp)?|\.inputs|\.clips_per_video)?\] " + message):
        settings_of(f"feed = {{{written}}}")


def test_a_name_alone_is_no_section():
    with pytest.raises(SettingError, match=r"feed\.mixing = 'MixUp' must be a section: write"):
        settings_of("feed = {mixing = 'MixUp'}")


@pytest.fixture
def studies(tmp_path):
    """Two studies of two views, side by side."""
    for number in range(4):
        np.save(tmp_path / f"{number}.npy", np.full((8, 10, 12), 40 * number, np.uint8))
    table = pa.table(
        {
            "path": [f"{number}.npy" for number in range(4)],
            "study": ["a", "a", "b", "b"],
            "view": ["2ch", "4ch"] * 2,
            "age": [40.0, 40.0, 60.0, 60.0],
        }
    )
    return Manifest.from_table(table, root=tmp_path).pivot(by="view", within="study")


def test_a_feed_is_built_as_its_settings_say(studies):
    feed = build_feed(settings_of(FEED.replace("seed = 3", "batch_size = 2")), studies)
    assert feed.settings.clips_per_video == ClipsPerVideo(count=2, interleave=True)
    assert feed.settings.inputs.geometry == "apart"
    assert feed.spec.views == ("2ch", "4ch") and feed.spec.stacked
    assert feed.batch(0).clips.shape == (2, 16, 64, 48, 2)


def test_a_feed_mixes_as_its_settings_say(studies):
    feed = build_feed(settings_of("feed = {batch_size = 2, workers = 0, mixing = {name = 'MixUp'}}"), studies)
    assert feed.settings.mixing == transforms.MixUp() and feed.settings.inputs.mask is None


@pytest.mark.parametrize("kinds", ["abababab", "abcabc"])
def test_a_page_says_the_shares_of_mixed_labels(tmp_path, kinds):
    paths = [f"{number}.npy" for number in range(len(kinds))]
    for path in paths:
        np.save(tmp_path / path, np.zeros((4, 8, 8), np.uint8))
    table = pa.table({"path": paths, "age": list(kinds)})
    mixed = "feed = {batch_size = 8, workers = 0, mixing = {name = 'MixUp', alpha = 5}}"
    _, captions = sheet(build_feed(settings_of(mixed), Manifest.from_table(table, root=tmp_path)))
    for caption in captions:
        shares = caption.partition(" · ")[2]
        assert sum(int(each.rstrip("%,")) for each in shares.split()[1::2]) in (99, 100, 101)
    assert any("," in caption for caption in captions)


@pytest.mark.parametrize("stack", ["true", "false"])
def test_a_page_shows_views_side_by_side(studies, stack):
    feed = build_feed(settings_of(f"feed = {{inputs = {{stack = {stack}}}, batch_size = 2, workers = 0}}"), studies)
    clips, captions = sheet(feed)
    assert clips.shape == (2, 16, 64, 96, 1)
    assert len(captions) == 2
    values = sorted(clips[:, 0, 32, [10, 80], 0].tolist())
    assert values == [[0, 40], [80, 120]]
