"""Prediction in parts: each part scores whole batches, and the merge writes one table."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cinefeed.core.locks import with_write_lock
from cinefeed.data.manifest.encoded import check_encoded
from cinefeed.data.manifest.parquet import table_digest
from cinefeed.data.manifest.write_table import table_suffix
from cinefeed.jobs.parts import Part, part_bounds
from cinefeed.jobs.records import DonePart, Job, PartWork, make_part, merged_rows, sha256_of
from cinefeed.jobs.versions import versions_of_network
from cinefeed.training.known_videos import count_by_part, known_videos_note
from cinefeed.training.predict import ROWS_AT_ONCE, prediction_tables, rows_to_predict, write_predictions
from cinefeed.training.run import WEIGHTS
from cinefeed.training.threads import with_threads_of_run
from cinefeed.training.trained import Tick, clip_counter, load


@with_threads_of_run
def predict_part(
    run: str | Path,
    *,
    manifest: str | Path,
    part: Part,
    out: str | Path,
    clips: int | None = None,
    per_clip: bool = False,
    tick: Tick | None = None,
) -> DonePart:
    """Score one part of a manifest into the folder `out`, to be merged by `merge`.

    A part consists of whole batches, since the last digits of a score depend on its batch. The other arguments and
    errors are those of `predict`.
    """
    loaded = load(run)
    readable, failures = rows_to_predict(manifest, loaded)
    check_encoded(readable, like=loaded.own)
    count = loaded.settings.evaluate.clips if clips is None else clips
    batch_size = loaded.trained.evaluation(readable.head(1), labelled=False, clips=count).settings.batch_size
    videos_per_batch = batch_size // count
    rows_per_write = -(-ROWS_AT_ONCE // batch_size) * (batch_size if per_clip else videos_per_batch)
    job = Job(
        command="predict",
        settings={"clips": count, "per_clip": per_clip},
        inputs={
            **{name: sha256_of(Path(run) / name) for name in (WEIGHTS, "settings.toml", "spec.json")},
            "manifest": table_digest(readable.table, b"").decode(),
            "rows": len(readable) * (count if per_clip else 1),
        },
        versions=versions_of_network(),
        whole={
            "rows_per_write": rows_per_write,
            "failures": failures,
            "warning": known_videos_note(count_by_part(readable, own=loaded.own), total=len(readable)),
        },
    )

    def work(part_folder: Path) -> PartWork:
        bounds = part_bounds(np.ones(-(-len(readable) // videos_per_batch)), part.count) * videos_per_batch
        first, last = np.minimum(bounds, len(readable))[part.number : part.number + 2].tolist()
        if first == last:
            return PartWork(numbers=np.arange(0))
        rows = readable.take(np.arange(first, last))
        feed = loaded.trained.evaluation(rows, labelled=False, clips=count)
        counter = clip_counter(tick, len(rows) * count)
        tables = prediction_tables(loaded, feed, per_clip=per_clip, tick=counter)
        table = write_predictions(tables, out=None)
        return PartWork(numbers=np.arange(len(table)) + first * (count if per_clip else 1), table=table)

    return make_part(Path(out), part, job, work)


@with_write_lock("out")
def merge_predict(parts: Sequence[DonePart], *, out: Path) -> dict[str, Any]:
    """Write the predictions of all parts as one table, and return the number of rows, the failures and a warning."""
    table_suffix(out)
    job = parts[0].job
    table, step = merged_rows(parts, total=job.inputs["rows"]), job.whole["rows_per_write"]
    write_predictions((table.slice(first, step) for first in range(0, len(table), step)), out=out)
    return {"rows": len(table), "failures": job.whole["failures"], "warning": job.whole["warning"]}
