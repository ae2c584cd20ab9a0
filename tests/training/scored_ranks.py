"""Scores shared out over ranks, and those of one process: `torchrun --nproc-per-node 2 scored_ranks.py OUT`."""

import json
import os
import sys
from pathlib import Path

os.environ |= {"KERAS_BACKEND": "torch", "OMP_NUM_THREADS": "1"}

import keras
import numpy as np

import cinefeed as cf
from cinefeed.models import cnn_rnn
from cinefeed.training.distributed import process_group, rank_and_size
from cinefeed.training.predictions import score
from cinefeed.training.ranks import feed_of_rank, score_by_ranks

ROWS = 13


def main(path):
    frames = np.random.default_rng(0).integers(0, 255, (ROWS, 9, 8, 8), np.uint8)
    labels = {"age": 20.5 + np.arange(ROWS), "kind": ["ab"[row % 2] for row in range(ROWS)]}
    labels["kind"][3] = None  # a row without one of its labels
    manifest, results = cf.Manifest.from_arrays(frames, labels), {}
    for batch_size in (1, 3, 8, 20):  # 13, 5, 2 and 1 batches
        for clips in (1, 2):
            feed = cf.Feed(
                manifest,
                target=["age", "kind"],
                clip=cf.Clip(frames=4),
                frame=cf.Frame(height=8, width=8, channels=1),
                batch_size=batch_size,
                workers=0,
            )
            val = feed.evaluation(manifest, clips=clips, shard=cf.Shard(rank=0, world_size=1))
            keras.utils.set_random_seed(7)
            model = cnn_rnn(feed.spec, filters=[2, 2], units=2, dense=2)
            own = feed_of_rank(val)
            merged, whole = score_by_ranks(model, own), score(model, val)
            rows = 0 if own is None else len(own.manifest)
            results[f"{batch_size} {clips}"] = {
                "rows": rows,
                "equal": None if merged is None else equal(merged, whole),
                "a change is seen": merged is None
                or not equal(merged, score(model, feed.evaluation(manifest.head(9)))),
            }
    rank, ranks = rank_and_size()
    Path(f"{path}{rank}.json").write_text(json.dumps({"ranks": ranks, "results": results}))


def equal(one, other):
    """Return whether all scores, labels and ids of both are the same, every bit."""
    same = np.array_equal(one.ids, other.ids) and np.array_equal(one.clip, other.clip)
    return same and all(
        np.array_equal(getattr(one, field)[name], getattr(other, field)[name])
        for field in ("values", "targets", "has_label")
        for name in ("age", "kind")
    )


if __name__ == "__main__":
    with process_group():
        main(sys.argv[1])
