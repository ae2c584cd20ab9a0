"""`cinefeed bench`: how fast a manifest is fed without a model, and how many workers of which kind do it best."""

import os
from collections.abc import Sequence
from dataclasses import asdict, replace
from functools import partial
from typing import Annotated

import typer

from cinefeed.cli.options import Flow, Json, with_flow
from cinefeed.cli.show import emit
from cinefeed.core.cores import usable_cores
from cinefeed.core.errors import SettingError, did_you_mean
from cinefeed.core.progress import shown_progress
from cinefeed.core.text import format_count, format_percent
from cinefeed.data.manifest.manifest import Manifest
from cinefeed.feed.feed import Feed
from cinefeed.feed.stats import NOTICEABLE_LOAD
from cinefeed.feed.throughput import Measured, measure_grid
from cinefeed.feed.workers.pools import Backend
from cinefeed.packing.advice import packing_advice

_KINDS: dict[str, Backend] = {"thread": "thread", "process": "process"}


@partial(with_flow, without=("workers", "backend"))
def bench(
    flow: Flow,
    counts: Annotated[
        str | None,
        typer.Option("--workers", help="Numbers of workers to compare, such as 0,1,2. Default: 0, 1 and one per core."),
    ] = None,
    backend: Annotated[
        str | None,
        typer.Option(help="Kinds of workers to compare: thread, process. Default: both if this machine has both."),
    ] = None,
    seconds: Annotated[float, typer.Option(help="Seconds to measure each number of workers, after a warm-up.")] = 5.0,
    epochs: Annotated[int | None, typer.Option(help="Number of epochs to measure, in place of --seconds.")] = None,
    as_json: Json = False,
) -> None:
    """Measure the feed without a model: clips per second, and the time of each stage, for some numbers of workers.

    Only the manifest is needed. The figures are those of a training if --config or the options are those of the
    training; if they have a split, the training part is fed.
    """
    from cinefeed.training.setup import build_feed, choose_rows, make_parts, usable_rows

    workers, backends = worker_counts(counts), backend_names(backend)
    settings, is_split = flow.preview()
    rows, _ = usable_rows(choose_rows(Manifest.read(settings.data.manifest), settings))
    part = make_parts(rows, settings).train if is_split else rows

    def make(count: int, kind: Backend) -> Feed:
        return build_feed(
            replace(
                settings, feed=replace(settings.feed, workers=replace(settings.feed.workers, count=count, backend=kind))
            ),
            part,
        )

    with shown_progress(None, what="bench") as tick:
        runs = measure_grid(make, workers=workers, backends=backends, seconds=seconds, epochs=epochs, progress=tick)
    best = max(runs, key=lambda run: run.stats.clips_per_second)
    note = others_note(runs, cores=usable_cores())
    frame = settings.frame
    clip = [settings.clip.frames, frame.height, frame.width, frame.channels]
    result: dict[str, object] = {
        "rows": len(part),
        "clip": clip,
        "batch_size": settings.feed.batch_size,
        "cores": usable_cores(),
        "runs": [run.as_dict() for run in runs],
        "best": {"workers": best.workers, "backend": best.backend},
        "verdict": verdict(best),
        "other_programs": note,
    }
    advice = packing_advice(part, settings.feed_settings(), best.stats)
    if advice is not None:
        result["packing"] = asdict(advice)
    size = " x ".join(map(str, clip))
    head = f"{len(part)} samples, clips of {size} in batches of {settings.feed.batch_size}, {usable_cores()} cores"
    lines = [head, format_runs(runs), verdict(best), note, "" if advice is None else str(advice)]
    emit(result, as_json=as_json, text="" if as_json else "\n".join(filter(None, lines)))


def worker_counts(text: str | None) -> list[int]:
    """Return the numbers of workers that `--workers` names.

    >>> worker_counts("2,0,1")
    [2, 0, 1]
    """
    if text is None:
        return sorted({0, 1, usable_cores()})
    if not all(each.strip().isdigit() for each in text.split(",")):
        raise SettingError(f"--workers {text!r} must be whole numbers with commas between them, such as 0,1,2")
    return [int(each) for each in text.split(",")]


def backend_names(text: str | None) -> list[Backend]:
    """Return the backends that `--backend` names; by default threads, and processes where they run.

    >>> backend_names("process,thread")
    ['process', 'thread']
    """
    able = hasattr(os, "memfd_create")
    names = [each.strip() for each in text.split(",")] if text is not None else list(_KINDS)[: 1 + able]
    for name in names:
        if name not in _KINDS:
            raise SettingError(f"--backend {text!r}: {name!r} is not a backend; {did_you_mean(name, _KINDS)}")
    if "process" in names and not able:
        raise SettingError(f"--backend {text!r}: worker processes need Linux; measure threads alone")
    return [_KINDS[name] for name in names]


def verdict(best: Measured) -> str:
    """Say in a line which setting was the fastest, and what it spends its time on."""
    stats = best.stats
    stage, seconds = max(stats.stages.items(), key=lambda each: each[1])
    share = seconds / (sum(stats.stages.values()) or 1.0)
    gain = "" if best.gain in (None, 1.0) else f", {best.gain:.1f} times one worker"
    return (
        f"fastest: {_who(best)} with {stats.clips_per_second:.4g} clips/s{gain}; {stage} takes {format_percent(share)} "
        f"of the work, {'the caller' if not best.workers else 'workers'} idle {format_percent(stats.idle_share)}"
    )


def others_note(runs: Sequence[Measured], *, cores: int) -> str:
    """Return how many cores other programs used in the runs; "" if too few to matter, or if it is not measured.

    >>> from cinefeed.feed.stats import Stats
    >>> stats = Stats(elapsed_seconds=10.0, available_cpu_seconds=20.0, other_cpu_seconds=14.0)
    >>> others_note([Measured(workers=1, backend="thread", stats=stats)], cores=2)
    'other programs used 1.4 of 2 cores meanwhile, so speeds and gains are wrong: repeat on an idle machine'
    """
    shares = [run.stats for run in runs if run.stats.available_cpu_seconds]
    if not any(each.other_cpu_seconds > NOTICEABLE_LOAD * each.available_cpu_seconds for each in shares):
        return ""
    low, high = (f"{number(each.other_cores for each in shares):.1f}" for number in (min, max))
    return (
        f"other programs used {low if low == high else f'{low} to {high}'} of {format_count(cores, 'core')} meanwhile, "
        "so speeds and gains are wrong: repeat on an idle machine"
    )


def format_runs(runs: Sequence[Measured]) -> str:
    """Return the table of all runs as text, in colour where it goes to a terminal."""
    from rich.box import SIMPLE
    from rich.console import Console
    from rich.table import Table

    stages = list(dict.fromkeys(name for run in runs for name in run.stats.seconds_a_clip))
    table = Table(box=SIMPLE, pad_edge=False, padding=(0, 1, 0, 0), caption=f"{', '.join(stages)} in ms a clip")
    table.add_column("workers", no_wrap=True)
    for name in ("clips/s", "MB/s", *stages, "idle", "gain"):
        table.add_column(name, justify="right", no_wrap=True)
    for run in runs:
        spent = run.stats.seconds_a_clip
        table.add_row(
            _who(run),
            f"{run.stats.clips_per_second:.1f}",
            f"{run.megabytes_per_second:.1f}",
            *(f"{1e3 * spent.get(stage, 0.0):.2f}" for stage in stages),
            format_percent(run.stats.idle_share),
            "" if run.gain is None else f"{run.gain:.2f} x",
        )
    console = Console()
    with console.capture() as captured:
        console.print(table)
    return "\n".join(line.rstrip() for line in captured.get().splitlines() if line.strip())


def _who(run: Measured) -> str:
    if not run.workers:
        return "the caller"
    return format_count(run.workers, run.backend)
