"""Commands that are killed at a write, or whose disk is full at one, and are then run again.

    killed.py train FOLDER kill 0 0.5      # kill -9 at these shares of all writes; "all" for each of them
    killed.py train FOLDER full all        # no file can be created, and no folder, from this write on
    killed.py train FOLDER partly all      # half of this file can be written, and as much of the next ones

Each command runs in a fork of this process, which has imported what the commands need. The output is JSON: the number
of writes of an undisturbed command, and for each disturbed one what was not as it should be. The package has no code
for this: an audit hook of the interpreter sees the writes, and a limit on file sizes stands for a disk.
"""

import errno
import hashlib
import io
import json
import os
import re
import resource
import shutil
import signal
import sys
import time
import traceback
import types
import zipfile
from functools import partial
from pathlib import Path

os.environ |= {"KERAS_BACKEND": "torch", "OMP_NUM_THREADS": "1"}

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

import cinefeed.core.files

write_atomically = cinefeed.core.files.write_atomically
written_files = []  # name and bytes of each file that was written atomically, in a fork
partly_at = None  # index of the write of which a part fits on the disk, in a fork


def write_on_small_disk(path, write, **options):
    """Write a file as cinefeed does, onto a disk with room for a part of it if it is the one to fail."""

    def measured(partial):
        write(partial)
        written_files.append((path.name, partial.stat().st_size))

    if partly_at is not None and len(written_files) == partly_at[0]:
        limit_file_size(partly_at[1] // 2)
    write_atomically(path, measured, **options)


def limit_file_size(size):
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))


cinefeed.core.files.write_atomically = write_on_small_disk  # before anything imports it from there

import cinefeed as cf  # noqa: E402
from cinefeed.cli import main as command_line  # noqa: E402
from cinefeed.core.digests import is_whole  # noqa: E402

JOURNALS = ("m.parquet.partial.jsonl", "scan.partial.jsonl", "encoded.jsonl", "log.jsonl")
PREPARED = "evaluate predict compare report export encode encode_parts predict_parts".split()  # they need a run
# What holds times or speeds of the work itself: the files, columns and keys that are not compared.
TIMED_FILES = ("log.jsonl", "feed_stats.json", "report.html")  # the job "report" compares a page
TIMED_KEYS = {"run.json": ("seconds", "feed_verdict"), "baselines.json": ("seconds",)}
TIMED_COLUMNS = {"features.parquet": ("mtime_ns",)}
WEIGHTS = "best.weights.h5"  # compared by its arrays: Keras numbers the names of layers through all of a process
UNNAMED = ("out", "run", "fold1", "fold2")  # temporary files without a name, opened by their folder
LIMITS = re.compile("the disk is full|a limit on disk usage is reached")


def make_inputs(folder, job):
    (folder / "in").mkdir(parents=True)
    for row in range(12):
        frames = np.full((6, 12, 12), 20 * row, np.uint8) + np.arange(6, dtype=np.uint8)[:, None, None]
        np.save(folder / "in" / f"{row:02}.npy", frames)
        os.utime(folder / "in" / f"{row:02}.npy", (10**9, 10**9))
    labels = {"path": [f"{row:02}.npy" for row in range(12)], "age": [20.0 + row for row in range(12)]}
    pq.write_table(pa.table({**labels, "patient": [f"p{row // 2}" for row in range(12)]}), folder / "labels.parquet")
    cf.Manifest.scan(folder / "in", labels=folder / "labels.parquet", out=folder / "given.parquet", progress=False)
    for name in ("out/run", "run"):
        (folder / f"{Path(name).parts[0]}.toml").write_text(settings_text(folder, name))
    if job in PREPARED:
        status, text, _ = forked("prepare", folder)
        assert status == 0, text


def settings_text(folder, out):
    from cinefeed.config import parse, to_toml

    return to_toml(
        parse(
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
                "train": {"out": str(folder / out), "epochs": 2, "save_minutes": 1e-9},
                "evaluate": {"resamples": 20},
            }
        )
    )


def in_parts(command, out, *, count=2):
    """Return the commands of all parts of a command, and of their merge."""
    parts = [f"{command} --out @parts --shard {number}/{count}" for number in range(count)]
    return ";".join([*parts, f"merge @parts --out {out}"])


COMMANDS = {  # "@" stands for the folder, ";" separates commands
    "scan": "scan @in --labels @labels.parquet --out @out/m.parquet --workers 1",
    "split": "split @given.parquet --out @out/split.parquet --group patient",
    "init": "init @given.parquet --target age --group patient --no-timing --out @out/settings.toml",
    "check": "check @given.parquet --target age --group patient --page @out/check.html --groups @out/groups.parquet",
    "prepare": "train --config @run.toml",
    "train": "train --config @out.toml",
    "folds": "train --config @out.toml --folds 2",
    "pack_raw": "pack @given.parquet --out @out/packed --codec raw --rows-per-shard 5 --workers 0",
    "pack_jpeg": "pack @given.parquet --out @out/packed --codec jpeg --rows-per-shard 5 --workers 0",
    "encode": "encode @run @given.parquet --out @out/features",
    "evaluate": "evaluate @run --out @out/scores.parquet",
    "predict": "predict @run --manifest @given.parquet --out @out/scores.csv",
    "compare": "compare @run @run --resamples 20 --out @out/comparison.json",
    "report": "report @run --out @out/page.html",
    "scan_parts": in_parts("scan @in --labels @labels.parquet --private --salt x --workers 1", "@out/m.parquet"),
    "pack_parts": in_parts("pack @given.parquet --codec raw --rows-per-shard 5 --workers 0", "@out/packed"),
    "encode_parts": in_parts("encode @run @given.parquet", "@out/features"),
    "predict_parts": in_parts("predict @run --manifest @given.parquet", "@out/scores.csv"),
    "scan_ray": "scan @in --labels @labels.parquet --private --salt x --out @out/m.parquet --engine ray --parts 2",
    "pack_ray": "pack @given.parquet --codec raw --rows-per-shard 5 --out @out/packed --engine ray --parts 2",
    "export": "export @run --format keras --out @out/model.keras",
}


class RayOfOneProcess(types.ModuleType):
    """In place of Ray: tasks run where they are submitted, so that this process sees the writes of parts and driver."""

    def remote(self, **_):
        return lambda function: types.SimpleNamespace(remote=lambda *arguments: partial(dict, of=function(*arguments)))

    def wait(self, pending):
        return pending[:1], pending[1:]

    def get(self, task):
        return task()["of"]

    def is_initialized(self):
        return True

    def nodes(self):
        return [{"Alive": True, "Resources": {"CPU": 1}}]


def name_in_error(path):
    """Return what an error should name: the shard that a file of packing is for, else the file itself."""
    if is_temporary(path):
        return path.parent.name
    return re.sub(r"^\.partial\.\d+\.", "", path.name)


def is_temporary(path):
    """Return whether packing writes this file for a shard: it is in a folder of the shard, in the folder `work`."""
    return path.parent.parent.name == "work"


def is_write(event, arguments):
    return event == "open" and bool((arguments[2] or 0) & (os.O_WRONLY | os.O_RDWR))


def watch(folder, *, kill_at=None, full_at=None):
    """Count what the process does to files below a folder; at one of these kill it, or let the disk be full."""
    report = {"kill": 0, "full": 0, "open_names": [], "refused_name": ""}

    def hook(event, arguments):
        path = arguments[0] if arguments else ""
        if not isinstance(path, str | os.PathLike) or not os.fspath(path).startswith(str(folder)):
            return
        is_step = event == "open" and os.fspath(path).endswith(".npy")  # of a scan
        if not (is_step or event in CHANGES or is_write(event, arguments)):
            return
        report["kill"] += 1
        if report["kill"] - 1 == kill_at:
            for journal in [each for name in JOURNALS if kill_at % 2 for each in folder.rglob(name)]:
                os.truncate(journal, max(journal.stat().st_size - 5, 0))  # the last line did not reach the disk
            os.kill(os.getpid(), signal.SIGKILL)
        if event in NEED_ROOM or is_write(event, arguments):
            report["full"] += 1
            if full_at is not None and report["full"] > full_at:
                report["refused_name"] = report["refused_name"] or name_in_error(Path(path))
                raise OSError(errno.ENOSPC, "No space left on device", str(path))
        if is_write(event, arguments) and not is_temporary(Path(path)):
            report["open_names"].append(Path(path).name)

    sys.addaudithook(hook)
    return report


NEED_ROOM = {"os.rename", "os.mkdir"}
CHANGES = NEED_ROOM | {"os.remove", "os.truncate", "os.rmdir"}


def forked(job, folder, *, partly=None, journal="", **disturbance):
    """Run a command in a fork; return its exit code, its text on stderr, and the report of `watch`."""
    read, write = os.pipe()
    process = os.fork()
    if process == 0:
        global partly_at
        partly_at, status = partly, 99
        if job.endswith("_ray"):
            sys.modules["ray"] = RayOfOneProcess("ray")
        try:
            os.dup2(write, 2)
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            written_files.clear()
            report = watch(folder, **disturbance)
            if journal:
                limit_journal(journal)
            for command in COMMANDS[job].split(";"):
                status = command_line([each.replace("@", f"{folder}/") for each in command.split()])
                if status:
                    break
            limit_file_size(resource.RLIM_INFINITY)
            print("\n" + json.dumps(report | {"written_files": written_files}), file=sys.stderr, flush=True)
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    os.close(write)
    with os.fdopen(read, errors="replace") as file:
        text = file.read()
    _, status = os.waitpid(process, 0)
    lines = text.splitlines()
    report = json.loads(lines.pop()) if lines and lines[-1].startswith("{") else {}
    return os.waitstatus_to_exitcode(status), "\n".join(lines), report


def limit_journal(name):
    """Leave room for a few bytes more of a file that is appended to."""

    def hook(event, arguments):
        if event == "open" and str(arguments[0]).endswith(name) and arguments[1] in ("a", "ab"):
            path = Path(arguments[0])
            limit_file_size((path.stat().st_size if path.exists() else 0) + 5)

    sys.addaudithook(hook)


def contents(folder):
    """Return a digest of each file, without what is documented to hold times."""
    digests = {}
    for path in sorted(folder.rglob("*")):
        name = path.name
        if path.is_dir():
            digests[str(path.relative_to(folder))] = "folder"
            continue
        if name in TIMED_FILES:
            digests[str(path.relative_to(folder))] = "file"
            continue
        content = path.read_bytes()
        if name in TIMED_KEYS:
            content = repr(
                {key: value for key, value in json.loads(content).items() if key not in TIMED_KEYS[name]}
            ).encode()
        if name in TIMED_COLUMNS:
            content = repr(pq.read_table(path).drop_columns(list(TIMED_COLUMNS[name])).to_pylist()).encode()
        if name == WEIGHTS:
            assert is_whole(path)
            content = arrays_in(path)
        if path.suffix == ".keras":  # its other files hold the time of saving, and numbers of this process
            with zipfile.ZipFile(path) as archive:
                content = arrays_in(io.BytesIO(archive.read("model.weights.h5")))
        digests[str(path.relative_to(folder))] = hashlib.sha256(content).hexdigest()
    return digests


def arrays_in(weights):
    import h5py

    arrays = []
    with h5py.File(weights) as file:
        file.visititems(lambda name, each: arrays.append(each[()]) if isinstance(each, h5py.Dataset) else None)
    assert arrays
    return b"".join(repr(each.shape).encode() + each.tobytes() for each in arrays)


def differences(one, other):
    return sorted(name for name in {*one, *other} if one.get(name) != other.get(name))


def fault_of_rerun(job, folder, expected):
    """Run the command again; return what differs from an undisturbed one, "" if nothing does."""
    status, text, _ = forked(job, folder)
    # disturbed after its last result
    is_finished = status == 2 and ("a finished run" in text or "settings.toml exists already" in text)
    for leftover in (folder / "out").rglob("*.lock") if is_finished else ():  # the next writer uses it again
        leftover.unlink()
    if status and not is_finished:
        return f"the rerun failed with code {status}: {text[-1000:]}"
    return f"not as undisturbed: {differ}" if (differ := differences(expected, contents(folder / "out"))) else ""


def fault_of_error(status, text, name, folder):
    """Return what is wrong with how a command ended on a full disk, "" if nothing is."""
    last = text.strip().splitlines()[-1] if text.strip() else ""
    if status != 1 or not last.startswith("cinefeed: ") or not LIMITS.search(last) or name not in last:
        return f"{name}: no clear error, but code {status}: {text[-1000:]}"
    rest = [str(each) for pattern in (".partial.*", "*.lock") for each in (folder / "out").rglob(pattern)]
    return f"{name}: temporary files are left: {rest}" if rest else ""


def reset(folder):
    for name in ("out", "parts"):
        shutil.rmtree(folder / name, ignore_errors=True)
    (folder / "out").mkdir()


def disturbances(how, undisturbed):
    """Return the arguments of `forked` for each disturbance of a kind, in the order of the writes."""
    if how == "kill":
        return [{"kill_at": place} for place in range(undisturbed["kill"])]
    if how == "full":
        return [{"full_at": place} for place in range(undisturbed["full"])]
    files = [{"partly": (place, size)} for place, (_, size) in enumerate(undisturbed["written_files"]) if size > 1]
    return [*files, *({"journal": name} for name in JOURNALS if name in undisturbed["open_names"])]


def main(job, folder, how, *shares):
    start, folder = time.monotonic(), Path(folder)
    if job not in ("split", "init") and not job.startswith(("scan", "pack")):  # imported once for all forks
        import cinefeed.reports
        import cinefeed.training.export
        import cinefeed.training.folds  # noqa: F401
    make_inputs(folder, job)
    reset(folder)
    status, text, undisturbed = forked(job, folder)
    assert status == 0, text
    expected = contents(folder / "out")
    reset(folder)
    status, text, _ = forked(job, folder)
    faults = {"undisturbed": text if status else differences(expected, contents(folder / "out"))}
    # No file is opened for writing under its final name.
    faults["open_names"] = [
        name for name in undisturbed["open_names"] if not name.startswith(".") and name not in (*JOURNALS, *UNNAMED)
    ]
    every = disturbances(how, undisturbed)
    selection = every if shares == ("all",) else [every[int(float(share) * (len(every) - 1))] for share in shares]
    for disturbance in selection:
        reset(folder)
        status, text, report = forked(job, folder, **disturbance)
        if how == "kill":
            fault = "" if status == -signal.SIGKILL else f"not killed, but {status}: {text}"
        else:
            place, _ = disturbance.get("partly", (None, None))
            name = report.get("refused_name") or disturbance.get("journal") or undisturbed["written_files"][place][0]
            fault = fault_of_error(status, text, name, folder)
        faults[repr(disturbance)] = fault or fault_of_rerun(job, folder, expected)
    faults = {name: fault for name, fault in faults.items() if fault}
    seconds = round(time.monotonic() - start)
    print(json.dumps({"writes": len(every), "checked": len(selection), "seconds": seconds, "faults": faults}))


if __name__ == "__main__":
    main(*sys.argv[1:])
