"""The reference of the documentation site has every public name, once."""

import ast
import re
from importlib import import_module
from pathlib import Path

import pytest

PAGES = sorted((Path(__file__).parents[1] / "docs" / "reference").glob("*.md"))
ENTRIES = [entry for page in PAGES for entry in re.findall(r"^::: (\S+)$", page.read_text(), re.MULTILINE)]


def listed_names():
    modules = {"cinefeed.core.errors"} & set(ENTRIES)  # a module lists all its public names
    yield from (f"{module}.{name}" for module in modules for name in vars(import_module(module)))
    yield from ENTRIES


@pytest.mark.parametrize(
    "module", ["", ".transforms", ".data.sampling", ".testing", ".metrics", ".config", ".encoders"]
)
def test_every_public_name_is_on_a_page(module):
    names = {name.rpartition(".")[2] for name in listed_names()}
    packages = {"__version__", "models", "testing", "transforms"}  # have a page of their own
    assert not set(import_module(f"cinefeed{module}").__all__) - names - packages


@pytest.mark.parametrize("module", ["models", "reports"])
def test_every_name_of_a_package_with_heavy_imports_is_on_a_page(module):
    tree = ast.parse((PAGES[0].parents[2] / "src" / "cinefeed" / module / "__init__.py").read_text())
    lists = [ast.literal_eval(each.value) for each in tree.body if isinstance(each, ast.Assign)]
    names = {name.rpartition(".")[2] for name in listed_names()}
    assert lists and not set(lists[-1]) - names - {"PageData", "write_report"}  # of pages that are not written yet


def test_no_name_is_on_two_pages():
    assert len(ENTRIES) == len(set(ENTRIES)) and len(ENTRIES) > 60


def test_every_entry_exists():
    for entry in ENTRIES:
        module, _, name = entry.rpartition(".")
        if not entry.startswith(("cinefeed.models", "cinefeed.adapters", "cinefeed.training")):  # import a framework
            assert hasattr(import_module(module), name), entry
