"""The examples' settings are settings."""

from pathlib import Path

import pytest

from cinefeed.config import overlay, parse, read_table

EXAMPLES = Path(__file__).parents[1] / "examples"
SCRIPTS = {"pocus_findings": "pocus_folds.sh"} | dict.fromkeys(
    ("pocus_linear", "pocus_attentive"), "pocus_pretrained.sh"
)


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.toml")), ids=lambda path: path.name)
def test_an_example_parses_with_what_its_script_adds(path):
    script = EXAMPLES / SCRIPTS.get(path.stem, f"{path.stem}.sh")
    assert path.stem in script.read_text(encoding="utf-8")
    added = {"data": {"manifest": "m.parquet"}, "train": {"out": "runs/a"}}
    settings = parse(overlay(read_table(path), added))
    assert settings.data.split.group is not None
