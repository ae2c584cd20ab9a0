"""The examples' settings are settings."""

from pathlib import Path

import pytest

from cinefeed.config import overlay, parse, read_table, read_transforms
from cinefeed.encoders.video_encoder import augmentation
from cinefeed.video.clips import Frame

EXAMPLES = Path(__file__).parents[1] / "examples"
SCRIPTS = {"pocus_findings": "pocus_folds.sh", "lips_words_ordered": "lips_words_pretrained.sh"}
SCRIPTS |= dict.fromkeys(("pocus_linear", "pocus_attentive"), "pocus_pretrained.sh")
TRANSFORMS = ("lips_augmentation",)  # no settings of a run


@pytest.mark.parametrize(
    "path", sorted(each for each in EXAMPLES.glob("*.toml") if each.stem not in TRANSFORMS), ids=lambda path: path.name
)
def test_an_example_parses_with_what_its_script_adds(path):
    script = EXAMPLES / SCRIPTS.get(path.stem, f"{path.stem}.sh")
    assert path.stem in script.read_text(encoding="utf-8")
    added = {"data": {"manifest": "m.parquet"}, "train": {"out": "runs/a"}}
    settings = parse(overlay(read_table(path), added))
    assert settings.data.split.group is not None


def test_the_transforms_of_augmented_versions_are_read_and_take_frames_one_by_one():
    frame = Frame(height=112, width=112)
    for name in TRANSFORMS:
        assert augmentation(read_transforms(EXAMPLES / f"{name}.toml"), frame) is not None
