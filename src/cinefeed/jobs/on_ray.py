"""Parts of some work as tasks of Ray, on a laptop or a cluster: the functions that --shard runs, merged at the end.

A task receives the settings of a part and returns its record; videos, frames and features go through files. Ray starts
a task again if its worker process or its machine is lost, and the part continues where it ended.
"""

import logging
import os
import pickle
import shutil
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout, suppress
from pathlib import Path
from typing import Any, Literal, NamedTuple

from cinefeed.core.cores import usable_cores
from cinefeed.core.errors import CinefeedError, InUseError, JobError, MissingExtraError, SettingError
from cinefeed.core.locks import FOLDER_LOCK, write_lock
from cinefeed.core.pools import ONE_THREAD, PASSIVE, openmp_threads_setting
from cinefeed.core.progress import Progress, shown_progress
from cinefeed.core.remote.cache import CACHE, CACHE_BYTES
from cinefeed.jobs.merge import merge
from cinefeed.jobs.parts import Part, part_folders
from cinefeed.jobs.records import DONE, DonePart

_log = logging.getLogger(__name__)
_RETRIES = 5  # of a part whose worker is lost
_CONNECT_SECONDS = 5.0
_LOCK_SECONDS = 120.0  # a file server may hold the lock of a lost machine for 90 s
_STORE_BYTES = 100_000_000  # of a local Ray: tasks return records, not pixels
_INHERITED = (
    "KERAS_BACKEND",
    CACHE,
    CACHE_BYTES,
    *ONE_THREAD,
    *PASSIVE,
)  # Ray sets OMP_NUM_THREADS, which changes last digits


class _Result(NamedTuple):
    """What a task returns: folder, record and machine of a part; or its error, as class and arguments."""

    folder: str = ""
    record: dict[str, Any] | None = None
    host: str = ""
    error: tuple[type[Exception], tuple[Any, ...]] | None = None


def default_parts(units: int) -> int:
    """Return a number of parts for so many files, shards, videos or batches: it depends on the data alone.

    One part per hundred units, at least 16, because a laptop needs several parts per core, and at most 256, because
    each part reads the manifest or lists the folder.

    >>> default_parts(7), default_parts(1_000), default_parts(5_000), default_parts(10**7)
    (7, 16, 50, 256)
    """
    return max(1, min(units, 256, max(16, units // 100)))


def parts_beside(out: Path) -> Path:
    """Return the folder of parts of a result: hidden, and beside it, so that files can be linked.

    >>> parts_beside(Path("/data/m.parquet")).as_posix()
    '/data/.m.parquet.parts'
    """
    target = out.resolve()
    return target.with_name(f".{target.name}.parts")


def run_on_ray(
    work: Callable[..., DonePart],
    *,
    out: str | Path,
    units: Callable[[], int],
    parts: int | None = None,
    address: str | None = None,
    workers: int = 1,
    network: bool = False,
    before: Callable[[Path], None] | None = None,
    progress: Progress | Literal[False] | None = None,
) -> dict[str, Any]:
    """Do all parts of some work as tasks of Ray, merge them to `out`, and return what `merge` returns.

    The result is that of one process, byte for byte, with any number of parts. Parts are made in a hidden folder beside
    `out`, which is removed at the end; the same call continues an interrupted one.

    Args:
        work: A function such as `scan_part` with all its arguments but `part` and `out`; it must be picklable.
        out: File or folder to write. All machines must see its folder, and all inputs, under the same path.
        units: Returns the number of files, shards, videos or batches, for the default of `parts`.
        parts: Number of parts.
        address: Address of a cluster, host:port or ray://host:port; by default that in RAY_ADDRESS, or a Ray that is
            started on this machine. A Ray that this process is connected to is used.
        workers: Number of CPUs that a part occupies.
        network: Whether a part computes a network: it occupies a GPU if the cluster has one, else as many CPUs as this
            process would use threads.
        before: Called with the folder of parts before they are made.
        progress: Called with the number of complete parts and that of all; see `shown_progress`.

    Raises the error of a part that failed, when all others are complete, or at once if it is a SettingError; JobError
    for a part whose worker is lost again and again; MissingExtraError without the extra `ray`.
    """
    target = Path(out)
    folder = parts_beside(target)
    if parts is not None and parts < 1:
        raise SettingError(f"parts={parts} must be at least 1")
    _import_ray()  # before anything that takes time
    with write_lock(folder, folder=True):
        started = next((part.count for _, part in part_folders(folder)), None)
        if None not in (started, parts) and started != parts:
            raise SettingError(
                f"parts={parts}, but {folder} has parts of {started} from an interrupted call; leave parts= out to "
                "continue it, or delete that folder to begin again"
            )
        count = started or parts or default_parts(units())
        if before is not None:
            before(folder)
        with _connected(address) as ray, shown_progress(progress, what="parts on Ray") as report:
            _do_parts(ray, work, count, folder, workers=workers, network=network, report=report)
        result = merge(folder, out=target)
        for path in folder.iterdir():
            if path.is_dir():
                shutil.rmtree(path)
            elif path.name != FOLDER_LOCK:
                path.unlink()
    with suppress(OSError):
        folder.rmdir()
    return result


def _do_parts(ray: Any, work: Any, count: int, folder: Path, *, workers: int, network: bool, report: Progress) -> None:
    """Do all parts, and raise the first error of a part."""
    resources = _resources(ray, workers=workers, network=network)
    task = ray.remote(max_retries=_RETRIES, **resources)(_do_part)
    environment = {name: os.environ.get(name) for name in _INHERITED}
    content = pickle.dumps(work)
    tasks = {
        task.remote(content, Part(number, count), str(folder), str(Path.cwd()), environment): Part(number, count)
        for number in range(count)
    }
    pending, failures = dict(tasks), {}
    report(0, count)
    try:
        while pending:
            (ready,), _ = ray.wait([*pending])
            part = pending.pop(ready)
            if error := _error_of(ray, ready, part):
                failures[part] = error
                if isinstance(error, SettingError):  # the same in all parts
                    break
            report(count - len(pending), count)
    finally:
        for each in pending:
            ray.cancel(each)
    if failures:
        part, error = min(failures.items(), key=lambda each: each[0])
        complete = count - len(pending) - len(failures)
        more = f", and {len(failures) - 1} more" if len(failures) > 1 else ""
        advice = f"; {complete} of {count} are complete in {folder}, and the same command continues from there"
        error.add_note(f"part {part} failed{more}{advice if complete else ''}")
        raise error


def _error_of(ray: Any, reference: Any, part: Part) -> Exception | None:
    """Return why a part failed; None for a complete one."""
    try:
        result: _Result = ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        cause = error.cause
        return JobError(
            f"part {part}: {type(cause).__name__}: {cause}; the same command with --shard {part} in place of --engine "
            "and another --out shows where"
        )
    except ray.exceptions.RayError as error:
        reason = str(error).strip().partition("\n")[0]
        return JobError(
            f"part {part}: its worker process was lost {_RETRIES + 1} times ({type(error).__name__}: {reason}); it may "
            "need more memory than its machine has"
        )
    if result.error is not None:
        kind, arguments = result.error
        return kind.__new__(kind, *arguments)
    if not (Path(result.folder) / DONE).is_file():
        return JobError(
            f"part {part} was written to {result.folder} on {result.host}, and {socket.gethostname()} does not see it; "
            "--out must be on storage that all machines share"
        )
    return None


def _do_part(content: bytes, part: Part, folder: str, directory: str, environment: dict[str, str | None]) -> _Result:
    """Do a part in a worker process of Ray."""
    for name, value in environment.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value
    host = socket.gethostname()
    try:
        try:
            os.chdir(directory)
        except OSError as error:
            raise SettingError(
                f"{directory}, from which the command was started, does not exist on {host}; start it from a folder "
                "that all machines share"
            ) from error
        done = _when_free(pickle.loads(content), part, Path(folder))
    except (CinefeedError, OSError) as error:
        state: Any = error.__reduce__()  # class, arguments: unlike `args`, with the file of an OSError
        return _Result(error=state[:2])
    return _Result(folder=str(done.folder), record=done.record, host=host)


def _when_free(work: Callable[..., DonePart], part: Part, folder: Path) -> DonePart:
    """Do a part; wait while the process of an earlier attempt, on a machine that Ray lost, holds its lock."""
    end = time.monotonic() + _LOCK_SECONDS
    while True:
        try:
            return work(part=part, out=folder)
        except InUseError:
            if time.monotonic() > end:
                raise
            time.sleep(1)


def _resources(ray: Any, *, workers: int, network: bool) -> dict[str, float]:
    """Return the CPUs and GPUs of a part, and log a warning if no machine has so many."""
    gpus = int(network and ray.cluster_resources().get("GPU", 0) >= 1)
    cpus = (openmp_threads_setting() or usable_cores()) if network and not gpus else max(workers, 1)
    largest = max((each["Resources"].get("CPU", 0) for each in ray.nodes() if each["Alive"]), default=0)
    if largest < cpus:
        remedy = "OMP_NUM_THREADS" if network else "--workers"
        _log.warning(
            "a part needs %d CPUs, and no machine of the cluster has more than %d; waiting for one. %s sets the number",
            cpus,
            largest,
            remedy,
        )
    return {"num_cpus": cpus, "num_gpus": gpus}


def _import_ray() -> Any:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # read when Ray starts: it reports to its makers otherwise
    try:
        import ray
    except ModuleNotFoundError as error:
        raise MissingExtraError("ray", extra="ray") from error
    return ray


@contextmanager
def _connected(address: str | None) -> Iterator[Any]:
    """Yield the module ray, connected to a cluster, or to a Ray on this machine that ends with the context."""
    ray = _import_ray()
    if ray.is_initialized():
        yield ray
        return
    address = address or os.environ.get("RAY_ADDRESS") or "local"
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if address == "local":
        options |= {"include_dashboard": False, "object_store_memory": _STORE_BYTES}
    elif address != "auto":
        _check_reachable(address)
    try:
        ray.init(address=address, **options)
    except Exception as error:  # a start that takes too long is a plain Exception
        reason = str(error).strip().partition("\n")[0]
        hint = "; if the cluster needs a token, set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN" * (address != "local")
        raise SettingError(f"no connection to Ray at {address!r}: {reason}{hint}") from error
    try:
        with redirect_stdout(sys.stderr):  # where Ray's thread reports lost workers
            yield ray
    finally:
        ray.shutdown()


def _check_reachable(address: str) -> None:
    """Raise SettingError unless a machine listens at an address, for which Ray itself waits for minutes."""
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if not (colon and host and port.isdecimal() and "/" not in host):
        raise SettingError(
            f"address={address!r} must be HOST:PORT of the head of a Ray cluster, such as 10.0.0.1:6379, or "
            "ray://HOST:10001, or auto for the cluster of this machine"
        )
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_CONNECT_SECONDS).close()
    except (OSError, OverflowError) as error:
        raise SettingError(
            f"address={address!r} cannot be reached: {error}; 'ray start --head' prints the address of a cluster, and "
            "without an address Ray is started on this machine"
        ) from error
