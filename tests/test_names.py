"""Names are nouns of the field: no bare participles, and no retired class names, in source, tests and benchmarks."""

import ast
from pathlib import Path

import pytest

import cinefeed

PACKAGE = Path(cinefeed.__file__).parent
TESTS = Path(__file__).parent
FOLDERS = {
    "src": PACKAGE,
    "tests": TESTS,
    "benchmarks": TESTS.parent / "benchmarks",
    "examples": TESTS.parent / "examples",
}
PARTICIPLES = {  # and what to write instead
    "asked": "requested_..., or the thing that was asked for",
    "chosen": "choice, or what was chosen: views, rows",
    "drawn": "parameters, sampled_rows",
    "found": "what was found: matching_rows, readers",
    "given": "what was given: arguments, options",
    "heard": "messages",
    "kept": "remaining_rows, stored_...",
    "known": "known_names, has_label",
    "looked": "viewed_...",
    "meant": "intended_...",
    "said": "message, text",
    "seen": "seen_ids",
    "shown": "text, displayed_rows",
    "taken": "taken_positions",
    "told": "parameters, message",
    "unsaid": "pending_messages",
    "wanted": "requested_...",
}
RETIRED = {  # class -> its name now
    "Assembler": "BatchBuilder",
    "Carried": "LabelSets",
    "Choice": "BackendChoice",
    "ClipMaker": "ClipPipeline",
    "Crew": "WorkerPool",
    "Draw": "PlanEntry",
    "Drawn": "ClipParameters",
    "Facts": "VideoMetadata",
    "Found": "DiscoveredSample",
    "Ladder": "SeekDecoder",
    "Limits": "ParameterRange",
    "Line": "BatchPrefetcher",
    "Meter": "StatsRecorder",
    "Plans": "PlanCache",
    "Reading": "ReadOptions",
    "Run": "DecodeRange",
    "Share": "Shard",
    "Shot": "ImageGeometry",
    "Slot": "BatchBuffer",
    "Slots": "BufferPool",
    "Spending": "MemoryBudget",
    "Stack": "CineStack",
    "Stacked": "ContiguousPlanes",
    "Ticks": "Timestamps",
    "Took": "ClipTimings",
    "UnfitError": "UnpicklableError",
}


def bound_names(tree: ast.AST) -> list[tuple[int, str, bool]]:
    """Return the line of each name that a module binds, the name, and whether it is that of a class."""
    names = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Name | ast.Attribute) and isinstance(node.ctx, ast.Store):
            names.append((node.lineno, node.id if isinstance(node, ast.Name) else node.attr, False))
        elif isinstance(node, ast.arg):
            names.append((node.lineno, node.arg, False))
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.append((node.lineno, node.name, isinstance(node, ast.ClassDef)))
        elif isinstance(node, ast.ExceptHandler | ast.MatchAs) and node.name:
            names.append((node.lineno, node.name, False))
    return names


def name_faults(folder: Path) -> list[str]:
    """Return every name that should be another, with its place and what to write instead."""
    faults = []
    for path in sorted(folder.rglob("*.py")):
        for line, name, is_class in bound_names(ast.parse(path.read_text())):
            better = RETIRED.get(name) if is_class else PARTICIPLES.get(name.strip("_"))
            if better:
                faults.append(f"{path.relative_to(folder)}:{line}: {name}; write {better}")
    return faults


@pytest.mark.parametrize("folder", FOLDERS.values(), ids=FOLDERS)
def test_names_are_nouns(folder):
    assert any(folder.rglob("*.py"))
    assert name_faults(folder) == []


@pytest.mark.parametrize(
    ("code", "fault"),
    [
        ("found = 1", "a.py:1: found; write what was found: matching_rows, readers"),
        ("def f(*, told): pass", "a.py:1: told; write parameters, message"),
        ("class A:\n    def _said(self): pass", "a.py:2: _said; write message, text"),
        ("self._kept = 1", "a.py:1: _kept; write remaining_rows, stored_..."),
        ("for shown in (): pass", "a.py:1: shown; write text, displayed_rows"),
        ("class Crew: pass", "a.py:1: Crew; write WorkerPool"),
    ],
)
def test_a_name_that_should_be_another_is_reported(tmp_path, code, fault):
    (tmp_path / "a.py").write_text(code)
    assert name_faults(tmp_path) == [fault]
