"""Who does the work: threads, or the caller itself, behind the interface of `concurrent.futures`."""

from collections.abc import Callable
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from typing import Any, Literal, ParamSpec, TypeVar

from cinefeed.errors import SettingError
from cinefeed.manifest.scan import usable_cores

Backend = Literal["thread"]

_P = ParamSpec("_P")
_T = TypeVar("_T")


class _Inline(Executor):
    """Runs each job at once, in the thread that submits it."""

    def submit(self, fn: Callable[_P, _T], /, *args: _P.args, **kwargs: _P.kwargs) -> Future[_T]:
        future: Future[_T] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:
            future.set_exception(error)
        return future


def count_workers(workers: Any) -> int:
    """Return the number of workers that a setting means: "auto" is one a usable core."""
    if workers == "auto":
        return usable_cores()
    if isinstance(workers, bool) or not isinstance(workers, int) or workers < 0:
        raise SettingError(f"workers={workers!r} must be 'auto' or a whole number, 0 for none beside the caller")
    return workers


def start_workers(count: int) -> Executor:
    """Return an executor of `count` threads; 0 is the caller itself."""
    return ThreadPoolExecutor(count, thread_name_prefix="cinefeed") if count else _Inline()
