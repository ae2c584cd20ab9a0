"""Broken files of every format: no crash, no hang, no memory beyond 1 GB, and every error is ours and names the file.

`make fuzz` breaks 2,000 files and prints what became of them; a sample of them runs with the other tests. Each file
is made of a seed, which repeats it:

    CINEFEED_FUZZ_SEEDS=12,77 make fuzz
"""

import os
import shutil
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fuzz_pool import Outcome, run_jobs
from fuzz_samples import Sample, write_samples
from fuzz_worker import PLANTS
from mutations import mutate

FOUND = Path(__file__).parent / "found"
MUTATIONS, SECONDS = 2000, 1200.0
FAST = range(0, 140)  # ten of each format

# Libraries that are known to crash: the process dies in their own code, which nothing in Python can prevent. Each is
# named with what happens and the seed that shows it.
KNOWN_CRASHES: dict[str, str] = {}

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="memory is watched through /proc")


@pytest.fixture(scope="module")
def samples(tmp_path_factory) -> dict[str, Sample]:
    return dict(write_samples(tmp_path_factory.mktemp("healthy")))


def broken(samples: dict[str, Sample], seeds: Iterable[int], folder: Path) -> Iterator[dict[str, Any]]:
    """Write a broken file for each seed, and yield the job that reads it."""
    names = list(samples)
    for seed in seeds:
        name = names[seed % len(names)]
        sample = samples[name]
        path = folder / f"{seed}-{sample.path.name}"
        if sample.path.is_dir():
            shutil.copytree(sample.path, path)
        else:
            shutil.copy(sample.path, path)
        file = sorted(path.iterdir())[seed % 3] if path.is_dir() else path
        kind, data = mutate(file.read_bytes(), seed=seed)
        file.write_bytes(data)
        about = {"seed": seed, "sample": name, "kind": kind, "library": sample.library}
        yield about | {"path": str(path), "healthy": str(sample.path), "part": sample.part}


def faults(outcomes: list[Outcome]) -> list[str]:
    """Return what must not be, one line each."""
    return [
        f"seed {outcome.job.get('seed')} ({outcome.job.get('sample')}, {outcome.job.get('kind')}): "
        f"{outcome.verdict}: {outcome.detail} [{outcome.seconds:.1f} s, {outcome.peak_mb:.0f} MB]"
        for outcome in outcomes
        if outcome.verdict not in ("read", "refused")
        and not (outcome.verdict == "crash" and outcome.job.get("library") in KNOWN_CRASHES)
    ]


def report(outcomes: list[Outcome]) -> str:
    """Return how many files of each format came to what, the worst figures, and each crash with its seed."""
    verdicts = sorted({outcome.verdict for outcome in outcomes})
    counts = Counter((outcome.job["sample"], outcome.verdict) for outcome in outcomes)
    lines = [f"{'':18}" + "".join(f"{verdict:>9}" for verdict in verdicts)]
    for name in sorted({outcome.job["sample"] for outcome in outcomes}):
        lines.append(f"{name:18}" + "".join(f"{counts[name, verdict]:9}" for verdict in verdicts))
    slowest, largest = (max(outcomes, key=lambda each: each[field]) for field in (3, 4))
    lines.append(f"slowest {slowest.seconds:.1f} s (seed {slowest.job['seed']})")
    lines.append(f"most memory {largest.peak_mb:.0f} MB (seed {largest.job['seed']})")
    lines += [
        f"crash in {outcome.job['library']}, seed {outcome.job['seed']}: {outcome.detail}"
        for outcome in outcomes
        if outcome.verdict == "crash"
    ]
    return "\n".join(lines)


def test_healthy_files_are_read(samples):
    jobs = [
        {"path": str(each.path), "healthy": str(each.path), "part": each.part, "library": each.library}
        for each in samples.values()
    ]
    outcomes = run_jobs(jobs, processes=1, seconds=60)
    assert [
        (Path(each.job["path"]).name, each.verdict, each.detail) for each in outcomes if each.verdict != "read"
    ] == []
    assert len(outcomes) == len(samples)


def test_some_broken_files(samples, tmp_path):
    outcomes = run_jobs(broken(samples, FAST, tmp_path), processes=2, seconds=120)
    assert faults(outcomes) == []
    assert len(outcomes) == len(FAST)
    assert {outcome.verdict for outcome in outcomes} == {"read", "refused"}


@pytest.mark.slow
def test_many_broken_files(samples, tmp_path, capsys):
    seed_range = os.environ.get("CINEFEED_FUZZ_SEEDS")
    seeds = [int(each) for each in seed_range.split(",")] if seed_range else range(MUTATIONS)
    outcomes = run_jobs(broken(samples, seeds, tmp_path), processes=2, seconds=SECONDS)
    with capsys.disabled():
        print("\n" + report(outcomes))
    problems = faults(outcomes)
    assert not problems, "\n".join([f"{len(problems)} of {len(outcomes)} files; they lie in {tmp_path}", *problems])
    assert len(outcomes) == len(seeds), f"{SECONDS:.0f} s were not enough for {len(seeds)} files"


def test_files_that_broke_us():
    """Each was found by an earlier run, and made as small as it could be."""
    paths = [str(path) for path in sorted(FOUND.iterdir())]
    jobs = [
        {"path": path, "healthy": path, "part": None, "library": "FFmpeg", "sample": Path(path).name} for path in paths
    ]
    assert faults(run_jobs(jobs, processes=1, seconds=60)) == []


def test_what_must_not_be_is_noticed():
    expected = {
        "foreign": "foreign: plant: KeyError: 'absent'",
        "no name": "foreign: plant: the file is not named",
        "too much memory": "memory: plant: MemoryError",
        "memory": "memory: stopped as it grew",
        "crash": "crash: SIGSEGV",
        "hang": "hang: stopped after 1 s",
    }
    jobs = [{"plant": plant} for plant in expected]
    assert set(expected) == set(PLANTS)
    outcomes = run_jobs(jobs[:-1], processes=1, seconds=60, hang_seconds=60)
    outcomes += run_jobs(jobs[-1:], processes=1, seconds=60, hang_seconds=1)
    for (plant, message), line in zip(expected.items(), faults(outcomes), strict=True):
        assert message in line, plant


def test_a_known_crash_is_let_be_and_reported(monkeypatch):
    crashed = Outcome({"library": "HDF5", "seed": 7, "sample": "h5"}, "crash", "SIGSEGV", 0.1, 0.0)
    assert faults([crashed]) == ["seed 7 (h5, None): crash: SIGSEGV [0.1 s, 0 MB]"]
    monkeypatch.setitem(KNOWN_CRASHES, "HDF5", "it follows a pointer of the file")
    assert faults([crashed]) == []
    assert "crash in HDF5, seed 7: SIGSEGV" in report([crashed])


def test_a_mutation_is_repeated_by_its_seed(samples):
    whole = samples["mp4"].path.read_bytes()
    broken_by = {mutate(whole, seed=seed) for seed in (3, 3, 4, 5)}
    assert len(broken_by) == 3
    assert all(data != whole for _, data in broken_by)
