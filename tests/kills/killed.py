"""Work that is killed at its n-th write, or whose disk is full, then done again: `python killed.py JOB FOLDER ...`.

    killed.py train FOLDER kill 0 3        # kill at writes 0 and 3; "all" for each of them
    killed.py train FOLDER full            # each file in turn cannot be written

Each piece of work runs in a fork of this process, which has imported all it needs. Printed is JSON: the number of
writes of undisturbed work, and for each kill, or each file, what was not as it should be. Nothing in cinefeed knows of
this.
"""

import hashlib
import json
import os
import resource
import shutil
import signal
import sys
from pathlib import Path

os.environ |= {"KERAS_BACKEND": "torch", "OMP_NUM_THREADS": "1"}

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

import cinefeed.core.files

FULL_BYTES = 1  # what of a file fits on the disk
JOURNALS = ("m.parquet.partial.jsonl", "encoded.jsonl", "log.jsonl")
# What holds times or speeds of the work itself: the files, columns and keys that are not compared.
TIMED_FILES = ("log.jsonl", "feed_stats.json")
TIMED_KEYS = {"run.json": ("seconds", "feed_verdict")}
TIMED_COLUMNS = {"features.parquet": ("mtime_ns",)}

WEIGHTS = "best.weights.h5"  # compared by its arrays: Keras numbers the names of layers through all of a process
PICTURES = ("worst.npz", "saliency.npz")  # a run never fails by them: here the next file does, for the disk stays full

full_file = ""  # the name of the file that cannot be written, in a fork
write_atomically = cinefeed.core.files.write_atomically
written_names = []


def limited(path, write):
    """Write a file as cinefeed does, onto a disk without room if it is the chosen one."""
    written_names.append(path.name)
    if path.name == full_file:
        resource.setrlimit(resource.RLIMIT_FSIZE, (FULL_BYTES, resource.RLIM_INFINITY))
    write_atomically(path, write)


cinefeed.core.files.write_atomically = limited  # before anything imports it from there

import cinefeed as cf  # noqa: E402
from cinefeed.core.digests import is_whole  # noqa: E402


def make_inputs(folder):
    folder.mkdir(parents=True)
    for row in range(12):
        frames = np.full((6, 12, 12), 20 * row, np.uint8) + np.arange(6, dtype=np.uint8)[:, None, None]
        np.save(folder / f"{row:02}.npy", frames)
        os.utime(folder / f"{row:02}.npy", (10**9, 10**9))
    labels = {"path": [f"{row:02}.npy" for row in range(12)], "age": [20.0 + row for row in range(12)]}
    pq.write_table(
        pa.table({**labels, "patient": [f"p{row // 2}" for row in range(12)]}), folder.parent / "labels.parquet"
    )
    cf.Manifest.scan(
        folder, labels=folder.parent / "labels.parquet", out=folder.parent / "given.parquet", progress=False
    )


def settings_of(folder):
    from cinefeed.config import parse

    return parse(
        {
            "data": {
                "manifest": str(folder / "given.parquet"),
                "target": "age",
                "split": {"group": "patient", "val": 0.2, "test": 0.2},
            },
            "clip": {"frames": 4},
            "frame": {"height": 8, "width": 8, "channels": 1},
            "transforms": [{"name": "Shift", "pixels": 2}],
            "feed": {"batch_size": 4, "seed": 7, "workers": 0},
            "model": {"filters": [2, 2], "units": 2, "dense": 2, "dropout": 0.5},
            "train": {"out": str(folder / "out" / "run"), "epochs": 2, "save_minutes": 1e-9},
            "evaluate": {"resamples": 20},
        }
    )


def scan(folder):
    out = folder / "out" / "m.parquet"
    cf.Manifest.scan(folder / "in", labels=folder / "labels.parquet", out=out, workers=1, progress=False)


def train(folder):
    from cinefeed.training.fit import train

    settings = settings_of(folder)
    if not (Path(settings.train.out) / "run.json").is_file():  # else it was killed after its last result
        train(settings)
    else:
        from cinefeed.core.errors import SettingError

        try:
            train(settings)
        except SettingError as error:
            assert "a finished run" in str(error)


def folds(folder):
    from cinefeed.training.fit import train
    from cinefeed.training.folds import train_folds

    train_folds(settings_of(folder), folds=2, train=train)


def encode(folder):
    import keras

    from cinefeed.training.encode import encode
    from cinefeed.training.frame_encoder import FrameEncoder
    from cinefeed.transforms.compose import Compose
    from cinefeed.video.clips import Frame

    frame = Frame(height=8, width=8, channels=1)
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((8, 8, 1)), keras.layers.Flatten(), keras.layers.Dense(3)])
    encoder = FrameEncoder(model=model, compose=Compose([], frame=frame), name="dense, weights 0")
    encode(folder / "given.parquet", out=folder / "out" / "features", encoder=encoder)


def pack(folder):
    from cinefeed.packing.pack import pack
    from cinefeed.packing.settings import PackSettings

    for codec in ("raw", "jpeg"):
        settings = PackSettings(codec=codec, rows_per_shard=5)
        pack(folder / "given.parquet", out=folder / "out" / codec, settings=settings, workers=0, progress=False)


JOBS = {"pack": pack, "scan": scan, "train": train, "encode": encode, "folds": folds}


def watch(folder, *, kill_at, torn):
    """Count what the process does to files below a folder, and end it at one of these, without a goodbye."""
    count = 0

    def hook(event, arguments):
        nonlocal count
        if event == "open":
            path, _, flags = arguments
            writes = bool((flags or 0) & (os.O_WRONLY | os.O_RDWR)) or str(path).endswith(".npy")  # a step of a scan
        else:
            path, writes = arguments[0] if arguments else "", event in EVENTS
        if not writes or not isinstance(path, str | os.PathLike) or not os.fspath(path).startswith(str(folder)):
            return
        count += 1
        if count - 1 == kill_at:
            if torn:
                for journal in JOURNALS:
                    for each in [*folder.rglob(journal)]:
                        os.truncate(each, max(each.stat().st_size - 5, 0))  # the last line did not reach the disk
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)
    return lambda: count


EVENTS = {"os.rename", "os.remove", "os.truncate", "os.mkdir", "os.rmdir"}


def forked(job, folder, *, kill_at=None, full="", torn=False):
    """Do a job in a fork; return its exit status, and what it printed at its end as JSON."""
    read, write = os.pipe()
    process = os.fork()
    if process == 0:
        global full_file
        full_file, status, report = full, 1, {}
        written_names.clear()
        try:
            counted = watch(folder, kill_at=kill_at, torn=torn)
            if full in JOURNALS:
                limit_journal(folder, full)
            JOBS[job](folder)
            status, report = 0, {"writes": counted(), "files": written_names}
        except BaseException as error:
            report = {
                "error": type(error).__name__,
                "message": str(error),
                "bases": [each.__name__ for each in type(error).__mro__],
            }
            resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        os.write(write, json.dumps(report).encode())
        os._exit(status)
    os.close(write)
    with os.fdopen(read) as file:
        text = file.read()
    _, status = os.waitpid(process, 0)
    return os.waitstatus_to_exitcode(status), json.loads(text or "{}")


def limit_journal(folder, name):
    """Leave no room for a file that is appended to, from its first line on."""

    def hook(event, arguments):
        if event == "open" and str(arguments[0]).endswith(name) and arguments[1] in ("a", "ab"):
            resource.setrlimit(resource.RLIMIT_FSIZE, (FULL_BYTES, resource.RLIM_INFINITY))

    sys.addaudithook(hook)


def contents(folder):
    """Return a digest of each file, without what is documented to hold times."""
    files = {}
    for path in sorted(folder.rglob("*")):
        name = path.name
        if path.is_dir():
            files[str(path.relative_to(folder))] = "folder"
            continue
        if name in TIMED_FILES:
            continue
        content = path.read_bytes()
        if name in TIMED_KEYS:
            content = repr(
                {key: value for key, value in json.loads(content).items() if key not in TIMED_KEYS[name]}
            ).encode()
        if name in TIMED_COLUMNS:
            content = repr(pq.read_table(path).drop_columns(list(TIMED_COLUMNS[name])).to_pylist()).encode()
        if name == WEIGHTS:
            content = weights_in(path)
        files[str(path.relative_to(folder))] = hashlib.sha256(content).hexdigest()
    return files


def weights_in(path):
    import h5py

    arrays = []
    with h5py.File(path) as file:
        file.visititems(lambda name, each: arrays.append(each[()]) if isinstance(each, h5py.Dataset) else None)
    assert is_whole(path) and arrays
    return b"".join(repr(each.shape).encode() + each.tobytes() for each in arrays)


def differences(one, other):
    return sorted(name for name in {*one, *other} if one.get(name) != other.get(name))


def done_again(job, folder, whole):
    status, report = forked(job, folder)
    if status:
        return f"the rerun failed: {report}"
    return f"not as undisturbed: {differ}" if (differ := differences(whole, contents(folder / "out"))) else ""


def fresh(folder):
    shutil.rmtree(folder / "out", ignore_errors=True)
    (folder / "out").mkdir()


def main(job, folder, how, *places):
    folder = Path(folder)
    make_inputs(folder / "in")
    if job not in ("scan", "pack"):
        import cinefeed.training.folds  # noqa: F401  # keras, once for all forks
    fresh(folder)
    status, undisturbed = forked(job, folder)
    assert status == 0, undisturbed
    whole = contents(folder / "out")
    fresh(folder)
    status, _ = forked(job, folder)
    faults = {"undisturbed": differences(whole, contents(folder / "out"))} if status == 0 else {"undisturbed": "failed"}
    total = undisturbed["writes"]
    if how == "kill":
        selection = range(total) if places == ("all",) else [int(float(each) * (total - 1)) for each in places]
        for place in selection:
            fresh(folder)
            status, report = forked(job, folder, kill_at=place, torn=place % 2 == 1)
            faults[place] = done_again(job, folder, whole) if status == -signal.SIGKILL else f"not killed: {report}"
    else:
        names = sorted(
            {
                *undisturbed["files"],
                *({"scan": JOURNALS[:1], "encode": JOURNALS[1:2], "pack": ()}.get(job, JOURNALS[2:])),
            }
        )
        for name in names if places in ((), ("all",)) else places:
            fresh(folder)
            status, report = forked(job, folder, full=name)
            is_named = name in report.get("message", "") or (
                name in PICTURES and "cannot be written" in report["message"]
            )
            if status == 0 or "CinefeedError" not in report.get("bases", ()) or not is_named:
                faults[name] = f"no clear error: {report}"
                continue
            half = [str(each) for each in (folder / "out").rglob(".partial*")]
            faults[name] = f"half-written: {half}" if half else done_again(job, folder, whole)
    print(json.dumps({"writes": total, "checked": len(faults) - 1, "faults": {k: v for k, v in faults.items() if v}}))


if __name__ == "__main__":
    main(*sys.argv[1:])
