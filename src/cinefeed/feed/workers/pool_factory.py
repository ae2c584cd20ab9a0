"""Start the workers of a feed: of the requested backend, or of the faster one of a short trial."""

import logging
import os
from collections.abc import Callable, Sequence

import cv2

from cinefeed.core.errors import FeedError, UnpicklableError
from cinefeed.core.pools import report_spinning
from cinefeed.feed.batch_layout import BatchLayout
from cinefeed.feed.clip_pipeline import ClipPipeline, PlanEntry
from cinefeed.feed.workers.autotune import BackendChoice, choose_backend
from cinefeed.feed.workers.pools import InlinePool, ThreadPool, WorkerPool
from cinefeed.feed.workers.processes import ProcessPool

_log = logging.getLogger(__name__)
_WITHOUT_THREADS = (
    "define the callable in a module of its own, give it a parameter `rng` (a NumPy generator) to draw from, or take "
    "workers=0"
)


def start_pool(
    pipeline: ClipPipeline,
    choice: BackendChoice | None,
    *,
    workers: int,
    layout: BatchLayout,
    tried: Callable[[], Sequence[PlanEntry]],
    deaths: list[str],
    timeout_seconds: float | None,
    meanwhile: Callable[[], object],
    only_processes: str = "",
) -> tuple[WorkerPool, BackendChoice | None]:
    """Start the workers, and return them with the choice of their backend.

    If there is no choice yet, the draws that `tried` returns are timed. `meanwhile` is called while processes start.
    If the settings cannot be sent to processes, threads are started and a warning is logged; if `only_processes` is
    the reason why threads would be wrong, and not "", FeedError is raised instead. OpenCV is set to compute on the
    calling thread, because several threads of this process make clips.
    """
    report_spinning()
    if not workers:
        return InlinePool(pipeline), choice
    if only_processes:
        if not hasattr(os, "memfd_create"):
            raise FeedError(f"{only_processes}, and there are no worker processes here; {_WITHOUT_THREADS}")
        choice = BackendChoice("process", f"processes make the clips: {only_processes}")
    if choice is None and timeout_seconds is not None and hasattr(os, "memfd_create"):
        choice = BackendChoice("process", "only processes can be stopped after timeout_seconds")
    if choice is None:
        choice = choose_backend(pipeline, tried(), workers=workers)
        _log.info("backend='auto' chose %s", choice.why)
    if choice.backend == "process":
        try:
            worker_pool = ProcessPool(
                pipeline,
                count=workers,
                layout=layout,
                deaths=deaths,
                timeout_seconds=timeout_seconds,
                meanwhile=meanwhile,
            )
            return worker_pool, choice
        except UnpicklableError as error:
            if only_processes:
                raise FeedError(
                    f"{only_processes}, and processes cannot make the clips: {error}; {_WITHOUT_THREADS}"
                ) from error
            choice = BackendChoice("thread", f"threads make the clips, because processes cannot: {error}")
            _log.warning("%s", choice.why)
    cv2.setNumThreads(1)
    return ThreadPool(pipeline, count=workers), choice
