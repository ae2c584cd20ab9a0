"""Scores of an evaluation whose rows are shared out over ranks, equal to those of one process to the last bit."""

import numpy as np

from cinefeed.feed.feed import Feed
from cinefeed.training.distributed import gather, rank_and_size
from cinefeed.training.keras_module import keras
from cinefeed.training.predictions import Scores, concatenate, score


def feed_of_rank(feed: Feed) -> Feed | None:
    """Return an evaluation feed of the rows that this rank scores, None if there are fewer batches than ranks.

    They are whole batches of `feed`, which has all rows, because the last digits of a score depend on its batch.
    """
    rank, ranks = rank_and_size()
    if ranks == 1:
        return feed
    clips = feed.settings.clips_per_video.count
    first, last = (len(feed) * each // ranks * (feed.settings.batch_size // clips) for each in (rank, rank + 1))
    rows = np.arange(first, min(last, len(feed.manifest)))
    return feed.evaluation(feed.manifest.take(rows), clips=clips) if len(rows) else None


def score_by_ranks(model: keras.Model, own_feed: Feed | None) -> Scores | None:
    """Return the scores of all rows in their order on rank 0, and None on the other ranks; all ranks must call it.

    `own_feed` is that of `feed_of_rank`.
    """
    parts = gather(None if own_feed is None else score(model, own_feed))
    return None if parts is None else concatenate([each for each in parts if each is not None])
