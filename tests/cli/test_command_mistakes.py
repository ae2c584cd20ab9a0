"""Plausible mistakes on the command line and in TOML: the message names the thing, the value and the remedy.

Each line of a table is what a user would type. A remedy is in the user's own interface: options on the command line,
keys in TOML. The exit code is 2 if something was asked wrongly, and 1 if the data do not allow it.
"""

import pytest

from cinefeed.cli import main
from cinefeed.cli.messages import in_command_line
from cinefeed.core.errors import ColumnError

FLOW = "train m.parquet --target kind --group patient --frame 16x16x1 --frames 3 --workers 0 --epochs 1 --out run"

# What is typed, the exit code, and what the message holds. `train ..` is FLOW with the options that follow.
COMMAND_LINE = [
    # Paths
    ("train absent.parquet", 2, "absent.parquet does not exist; did you mean 'm.parquet'?"),
    ("train videos --target kind", 2, "make a manifest of its videos first: cinefeed scan videos"),
    ("init labels.csv --target kind", 2, "labels.csv is not a manifest; make one of the videos first: cinefeed scan"),
    ("check notes.md", 2, "notes.md is not a manifest"),
    ("scan absent --out x.parquet", 2, "absent does not exist; check the path"),
    ("scan videos/p0/v0.npy --out x.parquet", 2, "v0.npy is not a folder; give the folder that contains the videos"),
    ("scan videos --labels lables.csv --out x.parquet", 2, "--labels lables.csv does not", "'labels.csv'?"),
    ("scan https://host/videos --out x.parquet", 2, "a web server does not list its files"),
    ("train .. --out gs://bucket/run", 2, "--out gs://bucket/run: only the folder of", "may be remote"),
    ("scan videos --out x.txt", 2, "x.txt cannot be written: the suffix of a table must be .parquet, .csv or .json"),
    ("evaluate videos", 2, "videos is not a run folder: settings.toml, spec.json,", "h5 are missing"),
    ("evaluate m.parquet", 2, "m.parquet is a manifest, not a table", "give a run folder, and this", "--manifest"),
    ("predict videos absent.mp4 --out p.csv", 2, "absent.mp4 does not exist"),
    ("report absent", 2, "absent does not exist"),
    ("train .. --config absent.toml", 2, "--config absent.toml does not exist"),
    # Labels
    ("scan videos --on path --out x.parquet", 2, "--on path needs a table of labels", "give --labels too"),
    ("scan videos --labels labels.csv --on file --out x.parquet", 2, "--on file: labels.csv has no column 'file'"),
    ("scan videos --labels part.csv --out x.parquet", 1, "7 of 12 videos have no row", "out with --unmatched ignore"),
    ("scan videos --unmatched drop --out x.parquet", 2, "--unmatched drop is not a choice; there are: error, ignore"),
    ("scan videos --verify full --out x.parquet", 2, "--verify full is not a choice; there are: decode, packets"),
    # Columns and rows
    ("train .. --target Kind", 2, "--target Kind: there is no column 'Kind'; did you mean 'kind'?"),
    ("split m.parquet --group patients --out s.parquet", 2, "--group patients: there is no column", "'patient'"),
    ("train .. --where kin!=a", 2, "there is no column 'kin'; did you mean 'kind'?"),
    ("train .. --where age>50", 2, "--where 'age>50' must be COLUMN=VALUE or COLUMN=VALUE,VALUE"),
    ("train .. --covariates agee", 2, "--covariates agee: there is no column 'agee'; did you mean 'age'?"),
    ("split m.parquet --out s.parquet", 2, "add --group COLUMN (the patient; candidates: patient ", "--no-group"),
    ("split m.parquet --group patient --val 15 --out s.parquet", 2, "--val 15 must be a fraction", "such as 0.15"),
    ("train .. --folds 20", 1, "there are 6 values of 'patient'; use at most 6 folds"),
    # Values
    ("train", 2, "missing: the manifest, --target COLUMN, --group COLUMN", "--frame HEIGHT", "and --out", "init"),
    ("train .. --frame 112,112,1", 2, "--frame '112,112,1' must be HEIGHTxWIDTHxCHANNELS, such as 112x112x1"),
    ("train .. --frame 16x16x2", 2, "--frame: channels = 2 must be 1 (grey) or 3 (RGB)"),
    ("train .. --stride 0", 2, "--stride 0 must be a whole number of at least 1"),
    ("train .. --rate 10 --stride 2", 2, "--rate and --stride exclude each other; give one"),
    ("train .. --task classification", 2, "--task 'classification' is not a choice; there are: binary, multiclass"),
    ("train .. --model CNN_RNN", 2, "--model 'CNN_RNN' is not a model; did you mean 'cnn_rnn'?"),
    ("train .. --loss bce", 2, "--loss 'bce' is not a choice; there are: auto, cross_entropy"),
    ("train .. --loss mse", 2, "--loss 'mse' is for a regression; the task is 'binary': leave it out"),
    ("train .. --epochs ten", 2, "--epochs"),
    ("train .. --workers all", 2, "--workers 'all' must be a whole number or 'auto'"),
    ("train .. --memory lots", 2, "--memory lots must be a number of bytes, such as '2GB'"),
    ("train .. --backend gpu", 2, "--backend 'gpu' must be one of 'thread', 'process' or 'auto'"),
    ("train .. --window 200,10", 2, "--window 200.0,10.0 must be two finite numbers, the smaller one first"),
    ("train .. --val 20", 2, "--val 20.0 must be a share between 0 and 1"),
    ("train .. --no-group", 2, "--group and --no-group exclude each other; give one"),
    ("trian m.parquet", 2, "Did you mean 'train'?"),
    ("encode m.parquet --out f", 2, "encode needs a run folder and a manifest", "; found m.parquet"),
]  # fmt: skip

# What stands in the settings file of `train --config`, and what the message holds.
SETTINGS_FILE = [
    ("", ["missing in x.toml and on the command line: the manifest, --target COLUMN", "--out FOLDER"]),
    ("[training]\nepochs = 3", ["training is not a section; did you mean 'train'?"]),
    ("epochs = 3", ["epochs is a setting of [train]; write it below the line [train]"]),
    ("[feed]\nbatch_size = '8'", ["[feed] batch_size = '8' must be a whole number"]),
    ("[feed]\nbatch_sise = 8", ["[feed] batch_sise is not a setting; did you mean 'batch_size'?"]),
    ("[frame]\nsize = [112, 112]", ["[frame] size is not a setting; there are: channels"]),
    ("[data.split]\ngroup = 'none'", ["[data.split] group = 'none': there is no column 'none'"]),
    ("[data.split]\ngroup = true", ["[data.split] group = true must be a text or false"]),
    ("[data.split]\nval = '15%'", ["[data.split] val = '15%' must be a number"]),
    ("[data]\ntarget = kind", ['x.toml is not TOML', 'line 2: text needs quotes, target = "kind"']),
    ("[data]\nmanifest = \"C:\\Users\\me\"", ["x.toml is not TOML", "line 2: write paths with / or in single quotes"]),
    ("[data.where]\nkind = 'a'", ["[data] where.kind = 'a' must be a list", "such as ['a']"]),
    ("[data]\nmanifest = 'absent.parquet'", ["absent.parquet does not exist; ", "relative to the current folder"]),
    ("[clip]\nstride = 0", ["[clip] stride = 0 must be a whole number of at least 1"]),
    ("[clip]\nrate = 10", ["[clip] rate is not a setting; did you mean 'rate_hz'?"]),
    ("[[transform]]\nname = 'Rotate'", ["transform is not a section; did you mean 'transforms'?"]),
    ("[transforms]\nname = 'Rotate'", ["[[transforms]] must be a list of tables, each headed [[transforms]]"]),
    ("[[transforms]]\nname = 'rotate'", ["[transforms] name = 'rotate' is not known; did you mean 'Rotate'?"]),
    ("[[transforms]]\nname = 'Rotate'\nangle = 3", ["[transforms: Rotate] angle is not a setting; there are: degrees"]),
    ("[[transforms]]\nname = 'MixUp'", ["write it as [feed.mixing], name = 'MixUp'"]),
    ("sampler = 'Natural'", ["sampler = 'Natural' must be a section: write [sampler], and name = 'Natural' below it"]),
    ("[sampler]\nname = 'balanced'", ["[sampler] name = 'balanced' is not known; did you mean 'BalancedClasses'?"]),
    ("[train]\nlearning_rate = '1e-3'", ["[train] learning_rate = '1e-3' must be a number"]),
    ("[train]\nfolds = 1", ["[train] folds = 1 must be 0 (a single run) or at least 2"]),
    ("[evaluate]\nsubgroups = 'patient'", ["[evaluate] subgroups = 'patient' must be a list", "such as ['patient']"]),
]  # fmt: skip
_REPLACED = {"group = ": "--group", "target = ": "--target", "[frame]": "--frame"}
_PYTHON = ("labels=", "on=", "unmatched=", "_of=", "Clip(", "Frame(", "None", "True", "Errno")


@pytest.fixture
def workplace(videos, manifest, tmp_path, monkeypatch):
    """The current folder, with videos, labels.csv, part.csv (some of the labels), notes.md and m.parquet."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "notes.md").write_text("a text, no manifest")
    (tmp_path / "part.csv").write_text("\n".join((tmp_path / "labels.csv").read_text().splitlines()[:6]) + "\n")
    return tmp_path


def words_of(line):
    """The words of a line of the table; options of FLOW are replaced by those given."""
    words = line.split()
    if words[1:2] != [".."]:
        return words
    flow = FLOW.split()
    for flag in {word for word in words if word.startswith("--")} & {*flow}:
        if flag != "--group":
            del flow[flow.index(flag) : flow.index(flag) + 2]
    return flow + words[2:]


@pytest.mark.parametrize(("line", "code", "parts"), [(line, code, parts) for line, code, *parts in COMMAND_LINE])
def test_a_mistake_on_the_command_line(cinefeed, workplace, line, code, parts):
    before = sorted(workplace.iterdir())
    done = cinefeed(*words_of(line))
    message = " ".join(done.err.split())
    assert done.code == code, message
    for part in parts:
        assert part in message
    assert not [word for word in _PYTHON if word in message], message
    assert done.out == "" and sorted(workplace.iterdir()) == before


@pytest.mark.parametrize(("text", "parts"), SETTINGS_FILE)
def test_a_mistake_in_a_settings_file(cinefeed, workplace, text, parts):
    (workplace / "x.toml").write_text(text + "\n")
    words = FLOW.split() if text else ["train"]
    for key, flag in _REPLACED.items():
        if key in text and flag in words:
            del words[words.index(flag) : words.index(flag) + 2]
    if "manifest" in text:
        words.remove("m.parquet")
    done = cinefeed(*words, "--config", "x.toml")
    assert done.code == 2, done.err
    for part in parts:
        assert part in done.err
    assert not [word for word in _PYTHON if word in done.err], done.err
    assert not (workplace / "run").exists()


def test_arguments_become_options():
    options = {"unmatched": "--unmatched", "views": "--views", "overwrite": "--overwrite", "val": "--val"}

    def text(message, error=ValueError, words=()):
        return in_command_line(error(), message, options=options, arguments=words)

    assert (
        text("leave them out with unmatched='ignore' (--unmatched ignore)") == "leave them out with --unmatched ignore"
    )
    assert text("pass --overwrite (overwrite=True)") == "pass --overwrite"
    assert text("views=('2ch', '4ch') are for several") == "--views 2ch,4ch are for several"
    assert text("val=15.0 must be") == "--val 15 must be"
    assert text("seed=3 is no option here") == "seed=3 is no option here"
    assert text("no row has val='c'; there are: a") == "no row has val='c'; there are: a"  # a column of that name
    assert text("[train] epochs = 0 must be at least 1") == "[train] epochs = 0 must be at least 1"  # of the file
    assert text("[train] epochs = 0 must be at least 1", words=["--epochs", "0"]) == "--epochs 0 must be at least 1"
    message = "there is no column 'agee'; did you mean 'age'?"
    assert text(message, ColumnError, ["--where", "agee=3"]) == f"--where agee=3: {message}"
    assert text(message, ColumnError, ["--views=agee"]) == f"--views agee: {message}"
    assert text(message, ColumnError) == message


def test_the_version_is_not_a_mistake(capsys):
    assert main(["--version"]) == 0
