"""The options of the feed: every command has them all, and each reaches the settings, whatever the file says."""

import tomllib
from dataclasses import replace

import pytest
import typer

from cinefeed.cli.app import make_app
from cinefeed.cli.options import Flow, feed_options, feed_table, with_flow
from cinefeed.config import parse, to_toml
from cinefeed.core.errors import SettingError
from cinefeed.feed.settings import ClipsPerVideo, FeedOptions, Inputs, Workers

TARGETS = {
    "data": {"manifest": "m.parquet", "target": "age", "split": {"group": "patient"}},
    "frame": {"height": 8, "width": 8},
    "train": {"out": "run"},
}
OPTIONS = {  # by flag: the words of a command line, and the settings that they make
    "batch_size": ("--batch-size 8", {"batch_size": 8}),
    "drop_last": ("--drop-last", {"drop_last": True}),
    "seed": ("--seed 7", {"seed": 7}),
    "on_error": ("--on-error replace", {"on_error": "replace"}),
    "max_bad": ("--max-bad 0.25", {"max_bad": 0.25}),
    "workers": ("--workers 3", {"workers": Workers(count=3)}),
    "backend": ("--backend process", {"workers": Workers(backend="process")}),
    "prefetch": ("--prefetch 5", {"workers": Workers(prefetch=5)}),
    "memory": ("--memory 2GB", {"workers": Workers(memory="2GB")}),
    "timeout_seconds": ("--timeout-seconds 1.5", {"workers": Workers(timeout_seconds=1.5)}),
    "cache": ("--cache there", {"workers": Workers(cache="there")}),
    "cache_bytes": ("--cache-bytes 20GB", {"workers": Workers(cache_bytes="20GB")}),
    "clips_per_video": ("--clips-per-video 4", {"clips_per_video": ClipsPerVideo(count=4)}),
    "interleave": (
        "--clips-per-video 4 --interleave",
        {"clips_per_video": ClipsPerVideo(count=4, interleave=True)},
    ),
    "covariates": ("--covariates a,b --covariates c", {"inputs": Inputs(covariates=("a", "b", "c"))}),
    "weight": ("--weight w", {"inputs": Inputs(weight="w")}),
    "views": ("--views 2ch,4ch", {"inputs": Inputs(views=("2ch", "4ch"))}),
    "stack": ("--stack", {"inputs": Inputs(stack=True)}),
    "geometry": ("--geometry apart", {"inputs": Inputs(geometry="apart")}),
    "mask": ("--mask outline", {"inputs": Inputs(mask="outline")}),
}


def flow_of(*words):
    """Return what the words of a command line say of the flow, read as those of `cinefeed train` are."""
    flows = []

    def command(flow: Flow) -> None:
        flows.append(flow)

    app = typer.Typer()
    app.command()(with_flow(command))
    app(args=list(words), standalone_mode=False)
    return flows[0]


def test_there_is_a_case_for_every_option():
    assert set(OPTIONS) == set(feed_options())


@pytest.mark.parametrize(("words", "expected"), OPTIONS.values(), ids=OPTIONS)
def test_an_option_reaches_the_settings(words, expected, tmp_path):
    settings = parse(flow_of(*words.split()).table(**TARGETS))
    assert settings.feed == replace(FeedOptions(), **expected) != FeedOptions()
    assert settings.feed_settings().batch_size == settings.feed.batch_size
    assert parse(tomllib.loads(to_toml(settings))) == settings
    (tmp_path / "settings.toml").write_text(to_toml(parse(TARGETS)))
    assert parse(flow_of("--config", str(tmp_path / "settings.toml"), *words.split()).table()).feed == settings.feed


@pytest.mark.parametrize(
    ("section", "words", "expected"),
    [
        ("workers = 3", "--memory 2GB", {"workers": Workers(count=3, memory="2GB")}),
        ("workers = 3", "--workers 0", {"workers": Workers(count=0)}),
        ("workers = {count = 3, memory = '2GB'}", "--workers auto", {"workers": Workers(memory="2GB")}),
        ("clips_per_video = 2", "--interleave", {"clips_per_video": ClipsPerVideo(count=2, interleave=True)}),
        ("inputs = ['a']", "--weight w", {"inputs": Inputs(covariates=("a",), weight="w")}),
        ("inputs = {weight = 'w'}", "--covariates a", {"inputs": Inputs(covariates=("a",), weight="w")}),
        ("drop_last = true", "--no-drop-last", {"drop_last": False}),
    ],
)
def test_an_option_leaves_the_other_settings_of_its_group(section, words, expected, tmp_path):
    (tmp_path / "settings.toml").write_text(f"[feed]\n{section}\n")
    table = flow_of("--config", str(tmp_path / "settings.toml"), *words.split()).table(**TARGETS)
    assert parse(table).feed == replace(FeedOptions(), **expected)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--workers two", r"\[feed.workers\] count = 'two'"),
        ("--workers=-1", r"\[feed.workers\] .* = '?-1'?"),
        ("--backend procss", r"\[feed.workers\] backend = 'procss' must be one of 'thread', 'process' or 'auto'"),
        ("--timeout-seconds 0", r"\[feed.workers\] timeout_seconds = 0.0 must be more than 0"),
        ("--on-error skip", r"\[feed\] on_error = 'skip' is not a choice"),
        ("--max-bad 2", r"\[feed\] max_bad = 2.0 must be a share"),
        ("--geometry aprt", r"\[feed.inputs\] geometry = 'aprt' is not a choice; did you mean 'apart'"),
    ],
)
def test_a_wrong_value_is_named(words, message):
    with pytest.raises(SettingError, match=message):
        parse(flow_of(*words.split()).table(**TARGETS))


@pytest.mark.parametrize("command", ["train", "inspect", "bench"])
def test_every_command_lists_them(command):
    parser = typer.main.get_command(make_app()).commands[command]
    listed = {each: option.help for option in parser.params for each in option.opts}
    for flag, (_, _, text) in feed_options().items():
        own = command == "bench" and flag in ("workers", "backend")  # a grid: several of each
        assert own or listed[f"--{flag.replace('_', '-')}"] == text
    assert {"--workers", "--backend"} <= set(listed)


def test_what_was_not_given_is_not_in_the_table():
    assert feed_table(dict.fromkeys(feed_options())) == {}
    assert "feed" not in flow_of().table()


def test_the_sampler_of_an_option_replaces_that_of_the_file(tmp_path):
    config = tmp_path / "run.toml"
    config.write_text('[sampler]\nname = "UniformLabels"\nbins = 5\n')
    words = ("--config", str(config), "--frame", "8x8", "--sampler")
    assert flow_of(*words, "Natural").table()["sampler"] == {"name": "Natural"}
    assert flow_of(*words, "UniformLabels").table()["sampler"] == {"name": "UniformLabels", "bins": 5}
    with pytest.raises(SettingError, match="--sampler and --balance exclude each other"):
        flow_of(*words, "Natural", "--balance").table()
