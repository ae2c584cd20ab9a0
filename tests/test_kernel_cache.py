"""Compiled code comes back from disk where it is the same code, and nowhere else."""

import logging
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

import cinefeed
from cinefeed.core import compiled, kernel_cache
from cinefeed.core.kernel_cache import cache_folder, version_digest

SOURCE = """
from cinefeed.core.compiled import compiled

FACTOR = {factor}

@compiled
def scaled(values):
    return values * FACTOR
"""


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """A cache of its own for each test, empty."""
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "cache"))
    for each in (cache_folder, version_digest):
        each.cache_clear()
    kernel_cache._reported_kinds.clear()
    yield tmp_path / "cache"
    for each in (cache_folder, version_digest):
        each.cache_clear()


def compiled_module(monkeypatch, factor=2, digest="a"):
    """Return a kernel as if it stood in a module of the package, whose sources have a digest."""
    monkeypatch.setattr(kernel_cache, "version_digest", lambda: digest)
    cache_folder.cache_clear()
    names = {"__name__": "cinefeed.made"}
    exec(SOURCE.format(factor=factor), names)
    return names["scaled"]


def files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def test_code_is_read_back(monkeypatch, folder):
    first = compiled_module(monkeypatch)
    assert first(21) == 42 and sum(first._cache_misses.values()) == 1
    again = compiled_module(monkeypatch)
    assert again(21) == 42 and sum(again._cache_hits.values()) == 1 and not again._cache_misses
    assert again(0.5) == 1.0 and sum(again._cache_misses.values()) == 1, "another signature is compiled"
    assert len(files(folder)) == 2


def test_other_sources_have_other_code(monkeypatch):
    assert compiled_module(monkeypatch, factor=2, digest="a")(21) == 42
    assert compiled_module(monkeypatch, factor=3, digest="b")(21) == 63


def test_the_digest_changes_with_every_kernel_of_the_package(tmp_path, monkeypatch):
    """numba asks only whether the file of a function changed, not those of the functions that it calls."""
    package = tmp_path / "cinefeed"
    shutil.copytree(Path(cinefeed.__file__).parent, package, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(kernel_cache, "__file__", str(package / "core" / "kernel_cache.py"))

    def digest() -> str:
        version_digest.cache_clear()
        return version_digest()

    before = digest()
    with (package / "core" / "errors.py").open("a") as file:
        file.write("# no kernel\n")
    assert digest() == before
    with (package / "transforms" / "kernels.py").open("a") as file:
        file.write("# a kernel\n")
    assert digest() != before


@pytest.mark.parametrize("harm", [b"", b"no code", None], ids=["empty", "overwritten", "one bit"])
def test_a_damaged_file_is_compiled_again_and_replaced(monkeypatch, folder, harm, caplog):
    compiled_module(monkeypatch)(21)
    (path,) = files(folder)
    whole = path.read_bytes()
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]) if harm is None else harm)
    with caplog.at_level(logging.WARNING):
        assert compiled_module(monkeypatch)(21) == 42
    assert "does not load" in caplog.text and str(path) in caplog.text
    again = compiled_module(monkeypatch)
    assert again(21) == 42 and not again._cache_misses


def test_without_a_folder_it_compiles_in_memory_and_reports_it_once(monkeypatch, tmp_path, caplog):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "file"))
    with caplog.at_level(logging.WARNING):
        kernel = compiled_module(monkeypatch)
        assert kernel(21) == 42 and kernel(0.5) == 1.0
    assert len(caplog.records) == 1 and "NUMBA_CACHE_DIR" in caplog.text


def test_functions_of_others_are_not_kept(folder):
    @compiled.compiled
    def total(values):
        result = 0.0
        for value in values:
            result += value
        return result

    assert total(np.ones(3)) == 3.0
    assert not files(folder)


def test_code_that_nobody_has_used_for_long_is_deleted(monkeypatch, folder):
    compiled_module(monkeypatch, digest="new")(21)
    (old := folder / "kernels" / "old").mkdir()
    os.utime(old, (0, 0))
    compiled_module(monkeypatch, digest="newer")(21)
    assert not old.exists() and (folder / "kernels" / "new").exists()
