"""Plausible mistakes in Python: each is refused where it is made, with the thing, the value and the remedy."""

import pickle

import numpy as np
import pyarrow as pa
import pytest

import cinefeed as cf
import cinefeed.transforms as ct
from cinefeed.core.arguments import check_arguments, in_words
from cinefeed.core.errors import ArgumentError, CinefeedError

# What is typed, and what the message must contain, in this order.
MISTAKES = [
    # A feed
    ("feed_of(sampler='BalancedClasses')", "sampler='BalancedClasses' ... give one such as BalancedClasses()"),
    ("feed_of(sampler=cf.UniformLabels)", "sampler=the class UniformLabels ... UniformLabels()"),
    ("feed_of(transforms=[ct.MixUp()])", "transforms[0] ... MixUp ... mixing=MixUp("),
    (
        "feed_of(transforms=[cf.Normalize(mode='standard', mean=0.45, std=0.22)])",
        "Normalize(mean=0.45, std=0.22) ... pixels from 0 to 1 ... uint8 ... multiply both by 255",
    ),
    ("feed_of(transforms=[cf.Normalize(mode='standard', mean=(1, 2, 3), std=(1, 2, 3))])", "3 numbers for 1 channel"),
    ("feed_of(transforms=[cf.Rotate])", "transforms[0] is the class Rotate ... Rotate(...)"),
    ("feed_of(transforms=['rotate'])", "transforms[0] is 'rotate' ... did you mean Rotate(...)?"),
    ("feed_of(transforms=cf.Rotate(degrees=5))", "transforms=a Rotate ... list ... transforms=[Rotate(degrees=5)]"),
    ("feed_of(mixing='mixup')", "mixing='mixup' ... MixUp()"),
    ("feed_of(clip=16)", "clip=16 must be a Clip ... Clip(frames=16)"),
    ("feed_of(frame=(56, 56, 3))", "frame=(56, 56, 3) must be a Frame ... Frame(height=56, width=56, channels=3)"),
    ("feed_of(frame=112)", "frame=112 must be a Frame ... Frame(height=112, width=112)"),
    ("feed_of(inputs=cf.Inputs(covariates='n_words'))", "covariates='n_words' ... list ... covariates=['n_words']"),
    ("feed_of(covariates=['n_words'])", "Feed has no argument 'covariates' ... inputs=Inputs(covariates=...)"),
    ("feed_of(inputs={'weight': 'w'})", "inputs={'weight': 'w'} ... Inputs(weight='w')"),
    ("feed_of(manifest=parts)", "needs a Manifest, found a Parts ... parts.train"),
    ("feed_of(manifest='m.parquet')", "needs a Manifest, found 'm.parquet' ... Manifest.read(path)"),
    ("feed_of(batchsize=4)", "Feed has no argument 'batchsize' ... 'batch_size'"),
    ("feed_of(shuffle=True)", "Feed has no argument 'shuffle' ... feed.evaluation(...) ... leave it out"),
    ("feed_of(num_workers=4)", "Feed has no argument 'num_workers' ... 'workers'"),
    ("feed_of(frames=16)", "Feed has no argument 'frames' ... clip=Clip(frames=...)"),
    ("feed_of(drop_last='yes')", "drop_last='yes' must be True or False ... drop_last=True"),
    ("feed_of(batch_size=True)", "batch_size=True must be a whole number"),
    ("feed_of(max_bad='1%')", "max_bad='1%' must be a number"),
    ("feed_of(seed=2**70)", "seed = 1180591620717411303424 must be at most 2**64-1"),
    ("feed_of(transforms=None)", "transforms=None must be a list of transforms; give transforms=[] for none"),
    ("feed_of(inputs=cf.Inputs(covariates=None))", "covariates=None must be a list of columns"),
    ("feed_of(seed=1.5)", "seed=1.5 must be a whole number"),
    ("feed_of(shard=(0, 2))", "shard=(0, 2) must be a Shard ... Shard(rank=0, world_size=2)"),
    ("feed_of(target='agee')", "no column 'agee' ... did you mean 'age'?"),
    ("feed_of(target='zzz')", "no column 'zzz' ... there are: age, sex, patient and 50 internal ones"),
    ("feed_of(target='sex', classes='fm')", "classes='fm' must be a list of names"),
    ("feed_of(manifest=with_gaps)", "1 of 12 rows ... 'age' ... manifest.drop_missing('age')"),
    ("feed.batch('a')", "index='a' must be a whole number ... feed.batch(0)"),
    ("feed.batch(0, epoch='1')", "epoch='1' must be a whole number"),
    ("feed['clips']", "index='clips' must be a whole number"),
    ("feed.set_epoch(True)", "epoch=True must be a whole number"),
    ("feed.restore('state.json')", "'state.json' ... feed.state() ... json.load()"),
    ("feed.restore(feed.state(), exact='no')", "exact must be a bool, found 'no'; exact=False"),
    ("feed.evaluation(manifest, labelled='no')", "labelled must be a bool, found 'no'; labelled=False"),
    ("feed.evaluation(parts)", "found a Parts ... parts.val"),
    # Settings
    ("cf.Clip(frame=8)", "Clip has no argument 'frame' ... 'frames'"),
    ("cf.Clip(frames=8, fps=25)", "Clip has no argument 'fps' ... did you mean 'rate_hz'?"),
    ("cf.Frame(size=48)", "Frame has no argument 'size' ... Frame(height=112, width=112)"),
    ("feed_of(layout='BTCHW')", "no argument 'layout' ... FeedLoader(feed, layout=...)"),
    ("cf.Clip(16)", "Clip takes its arguments by name, as in Clip(frames=16)"),
    ("cf.Clip(frames='16')", "Clip(frames='16') must be a whole number ... frames=16"),
    ("cf.Clip(rate_hz='30')", "Clip(rate_hz='30') must be a number or None ... rate_hz=30"),
    ("cf.Frame(112, 112)", "Frame takes its arguments by name, as in Frame(height=112, width=112)"),
    ("cf.Frame(heigth=8, width=8)", "Frame has no argument 'heigth' ... 'height'"),
    ("cf.Frame(height=112)", "Frame needs width ... Frame(width=...)"),
    ("cf.Frame(height=8, width=8, channels=True)", "channels=True) must be a whole number"),
    ("cf.Frame(height=8, width=8, dtype=np.uint8)", "the class uint8 is not a choice ... 'uint8'"),
    ("cf.Workers(timeout_seconds='60')", "timeout_seconds='60') must be a number or None ... timeout_seconds=60"),
    ("cf.Workers(memory='2 apples')", "memory='2 apples' must be a number of bytes ... '2GB'"),
    ("cf.Shard(rank=True, world_size=2)", "rank=True) must be a whole number"),
    ("cf.Inputs(weight=['w'])", "Inputs(weight=['w']) must be a text or None ... weight='w'"),
    ("cf.ReadLimits(max_frames='1000')", "max_frames='1000') must be a whole number ... max_frames=1000"),
    ("cf.ReadLimits(max_frame=10)", "ReadLimits has no argument 'max_frame' ... 'max_frames'"),
    ("cf.ReadOptions(limits={'max_frames': 10})", "limits ... ReadLimits, found {'max_frames': 10}"),
    ("cf.ReadOptions(keep='Manufacturer')", "keep='Manufacturer' ... list ... keep=['Manufacturer']"),
    ("cf.Rotate(25)", "Rotate takes its arguments by name, as in Rotate(degrees=25)"),
    ("cf.Rotate(degree=25)", "Rotate has no argument 'degree' ... 'degrees'"),
    ("cf.Rotate(degrees='25')", "Rotate(degrees)='25' must be a number"),
    ("cf.UniformLabels(strength='0.5')", "UniformLabels(strength='0.5') must be a number ... strength=0.5"),
    ("cf.BalancedClasses(bin=5)", "BalancedClasses has no argument 'bin'"),
    # Manifests
    ("manifest.split(val=0.2, test=0.2)", "Manifest.split needs group ... None if all rows are independent"),
    ("manifest.split(val=0.2, test=0.2, group=False)", "group=False ... None if all rows are independent"),
    ("manifest.split(val=0.2, test=0.2, group=['patient'])", "group=['patient'] ... group='patient'"),
    ("manifest.split(0.2, 0.2, group=None)", "by name, as in split(val=0.2, test=0.2, group=None)"),
    (
        "manifest.split(0.7, 0.15, 0.15)",
        "by name: split(val=..., test=..., group= ... rest is for training ... 'patient'",
    ),
    ("pickle.dumps(feed)", "cannot be pickled ... feed.state()"),
    ("feed_of(task='classification')", "task='classification' is not a task; give 'binary' for two classes"),
    ("manifest.split(test_size=0.2, group=None)", "Manifest.split has no argument 'test_size' ... 'test'"),
    ("manifest.split(val=0.2, test=0.2, group=None, stratify=True)", "stratify=True ... label column"),
    ("with_gaps.split(val=0.2, test=0.2, group=None, stratify='age')", "manifest.drop_missing('age')"),
    ("manifest.where(sex='f')", "Manifest.where has no argument 'sex' ... manifest.where('view', ['4ch'])"),
    ("manifest.where('sex')", "Manifest.where needs values ... manifest.where('view', ['4ch'])"),
    ("manifest.split(val=0.2, test=0.2, group=None, seed='7')", "seed='7' must be a whole number"),
    ("manifest.split(val=0.2, test=0.2, group=None, seed=-1)", "seed=-1 ... give whole numbers from 0 to 2**64-1"),
    ("manifest.folds(2, group=None, seed='7')", "seed='7' must be a whole number"),
    ("manifest.path_of('x')", "row='x' must be a whole number; rows are counted from 0"),
    ("manifest.relative_path('x')", "row='x' must be a whole number"),
    ("manifest.open('x')", "row='x' must be a whole number"),
    ("manifest.window('x')", "row='x' must be a whole number"),
    ("manifest.metadata('x')", "row='x' must be a whole number"),
    ("manifest.drop_missing(['age'])", "no column ['age'] ... 'age'"),
    ("manifest.concat([manifest])", "concat ... Manifest.concat([manifest, other])"),
    ("cf.Manifest.concat(manifest)", "expected a list of one or more manifests, found a Manifest"),
    ("manifest.head('5')", "n='5' must be a whole number"),
    ("manifest.take('a')", "expected a list of row numbers, found 'a'"),
    ("manifest.with_column('x', 5)", "expected one value per row, found 5 ... 11 values"),
    ("cf.Manifest('videos/')", "Manifest needs root ... Manifest.scan(folder)"),
    ("cf.Manifest.scan(['a', 'b'])", "Manifest.scan(folder) ... found ['a', 'b'] ... Manifest.concat([...])"),
    ("cf.Manifest.scan('videos', workers='4')", "workers='4' must be a whole number; leave it out"),
    ("cf.Manifest.scan('videos', unmatched='drop')", "unmatched='drop' is not a choice; there are: error, ignore"),
    ("cf.Manifest.scan('videos', unmatched=None)", "unmatched=None is not a choice"),
    ("cf.Manifest.scan('videos', label='t.csv')", "Manifest.scan has no argument 'label' ... labels=TABLE"),
    ("cf.Manifest.scan('videos', reading={'axes': 'THW'})", "found {'axes': 'THW'} ... reading=ReadOptions(...)"),
    ("cf.Manifest.from_arrays('videos/')", "'videos/' ... Manifest.scan(folder)"),
    # Videos
    ("cf.open_video(manifest)", "found a Manifest ... manifest.open(row)"),
    ("cf.open_video(np.zeros((4, 8, 8), np.uint8))", "found a numpy ndarray ... Manifest.from_arrays"),
    ("cf.register_reader(np.load, '.swapped')", "swapped ... register_reader('.swapped', load)"),
    ("cf.register_reader('swapped', np.load)", "suffixes='swapped' ... with its dot"),
    # Addresses
    (
        "cf.open_video('s3://bucket/a.mp4')",
        "s3://bucket/a.mp4: only the root of a manifest may be remote ... local",
    ),
    ("cf.probe('https://site.org/a.mp4')", "https://site.org/a.mp4: only the root of a manifest may be remote"),
    ("cf.Manifest.scan('https://site.org/videos')", "web server does not list its files ... Manifest.from_table"),
    ("cf.Manifest.scan('s3://key:word@bucket/videos')", "s3://...@bucket/videos holds a user name ... environment"),
    ("cf.Manifest.from_table({'path': ['a.mp4']}, root='https://h/v?sig=1')", "https://h/v?... has a query"),
    ("cf.Manifest.from_table({'path': ['a.mp4']}, root='s3://')", "names no bucket or host"),
    ("cf.Manifest.scan('videos', labels='s3://b/t.csv')", "s3://b/t.csv: only the root of a manifest may be remote"),
    (
        "cf.Manifest.scan('videos', out='s3://b/m.parquet')",
        "s3://b/m.parquet: only the root of a manifest may be remote",
    ),
    ("cf.Manifest.read('s3://b/m.parquet')", "s3://b/m.parquet: only the root of a manifest may be remote"),
    ("cf.Manifest.from_table('hf://data/t.csv')", "hf://data/t.csv: only the root of a manifest may be remote"),
    ("cf.Manifest.from_table({'path': ['a.mp4', 's3://b/a.mp4']})", "a.mp4 is not under the root ... give a root"),
    ("manifest.write('s3://b/m.parquet')", "s3://b/m.parquet: only the root of a manifest may be remote"),
]


@pytest.fixture(scope="module")
def names(tmp_path_factory):
    folder = tmp_path_factory.mktemp("videos")
    for number in range(12):
        np.save(folder / f"{number}.npy", np.full((9, 20, 20), number, np.uint8))
    rows = range(12)
    labels = {"age": [float(row + 30) if row else None for row in rows], "sex": ["f", "m"] * 6}
    table = pa.table({"path": [f"{row}.npy" for row in rows], **labels, "patient": [f"p{row // 2}" for row in rows]})
    with_gaps = cf.Manifest.scan(folder, labels=table, on="path", progress=False)
    manifest = with_gaps.drop_missing("age")

    def feed_of(*, manifest=manifest, **options):
        defaults = {"target": "age", "clip": cf.Clip(frames=4), "frame": cf.Frame(height=16, width=16, channels=1)}
        return cf.Feed(manifest, **(defaults | {"batch_size": 2, "workers": 0} | options))

    return {
        "cf": cf,
        "ct": ct,
        "np": np,
        "pickle": pickle,
        "with_gaps": with_gaps,
        "manifest": manifest,
        "parts": manifest.split(val=0.2, test=0.2, group="patient"),
        "feed_of": feed_of,
        "feed": feed_of(),
    }


def message_of(code, names):
    with pytest.raises(CinefeedError) as refused:
        eval(code, dict(names))
    return str(refused.value.args[0])


def contains(message, expected):
    """Return whether a message contains the parts of a text between "...", in their order."""
    place = 0
    for part in expected.split("..."):
        # "..." within a call, as in Rotate(...), splits it: the pieces still have to follow each other.
        place = message.find(part.strip(), place)
        if place < 0:
            return False
        place += len(part.strip())
    return True


@pytest.mark.parametrize(("code", "expected"), MISTAKES, ids=[code for code, _ in MISTAKES])
def test_a_mistake_is_named_with_its_remedy(names, code, expected):
    message = message_of(code, names)
    assert contains(message, expected), message
    assert "0x" not in message and len(message) < 400


def test_a_message_that_lacks_a_part_is_noticed():
    assert contains("clip=16 must be a Clip, such as Clip(frames=16)", "clip=16 ... Clip(frames=16)")
    assert not contains("clip=16 must be a Clip, such as Clip(frames=16)", "Clip(frames=16) ... clip=16")


def test_numpy_scalars_are_numbers(names):
    clip = cf.Clip(frames=np.int64(4), stride=np.int16(2))
    assert clip == cf.Clip(frames=4, stride=2) and type(clip.frames) is int
    frame = cf.Frame(
        height=np.int32(16), width=np.int64(16), channels=np.int8(1), window=(np.float32(0), np.float32(5))
    )
    assert frame == cf.Frame(height=16, width=16, channels=1, window=(0, 5)) and type(frame.window[0]) is float
    feed = names["feed_of"](batch_size=np.int64(3), seed=np.int64(7), workers=np.int64(0))
    assert len(feed.batch(np.int64(1), epoch=np.int8(2)).ids) == 3
    assert feed.settings == names["feed_of"](batch_size=3, seed=7).settings
    assert len(names["manifest"].head(np.int64(2))) == 2
    assert len(names["manifest"].folds(np.int64(2), group="patient")) == 2
    assert cf.UniformLabels(strength=np.float32(0.5)) == cf.UniformLabels(strength=0.5)


def test_an_error_within_a_function_stays_as_it_is():
    @check_arguments()
    def work(*, count):
        return len(count)

    assert work(count=[1]) == 1
    with pytest.raises(TypeError, match="has no len") as raised:
        work(count=3)
    assert not isinstance(raised.value, ArgumentError)


def test_checked_functions_keep_their_signature_and_their_examples():
    import doctest
    import inspect

    import cinefeed.video.registry as registry

    assert list(inspect.signature(cf.open_video).parameters)[:2] == ["path", "channels"]
    assert next(iter(inspect.signature(cf.Clip).parameters)) == "frames"
    examples = [each.name for each in doctest.DocTestFinder().find(registry) if each.examples]
    assert "cinefeed.video.registry.open_video" in examples
    assert pickle.loads(pickle.dumps(cf.open_video)) is cf.open_video
    assert pickle.loads(pickle.dumps(cf.Clip(frames=3))) == cf.Clip(frames=3)


def test_an_argument_error_is_also_a_type_error_and_a_setting_error():
    with pytest.raises(TypeError):
        cf.Clip(frame=8)
    with pytest.raises(ValueError):
        cf.Clip(frame=8)


def test_an_epoch_without_a_batch_is_reported(names, caplog):
    assert list(names["feed_of"](batch_size=100, drop_last=True)) == []
    assert "no full batch of 100" in caplog.text and "drop_last=False" in caplog.text


def test_values_in_words_have_no_address():
    assert in_words(object()) == "an object"
    assert in_words("x" * 500).count("x") < 80
    assert "0x" not in in_words([object()])


def test_an_unknown_name_of_the_package_has_a_hint():
    with pytest.raises(AttributeError, match="did you mean 'Feed'"):
        cf.Feeder  # noqa: B018
    with pytest.raises(AttributeError, match="did you mean 'Rotate'"):
        ct.Rotation  # noqa: B018


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("FeedLoader", "cinefeed.adapters.torch.FeedLoader"),
        ("DataLoader", "cinefeed.adapters.torch.FeedLoader"),
        ("VideoDataset", "Manifest.scan"),
        ("RandomRotate", "did you mean 'Rotate'"),
    ],
)
def test_names_of_other_libraries_have_a_hint(name, advice):
    with pytest.raises(AttributeError, match=advice):
        getattr(cf, name)


def test_a_transform_that_is_not_at_the_root_is_found():
    with pytest.raises(AttributeError, match=r"no attribute 'MixUp'; use cinefeed\.transforms\.MixUp"):
        cf.MixUp  # noqa: B018
