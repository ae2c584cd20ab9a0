"""What every feed must keep, cinefeed's own and a user's.

A little past 400 lines: one function, and a short one for each promise that it looks at.
"""

import hashlib
import json
import os
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cinefeed.balance import Natural
from cinefeed.errors import FeedError
from cinefeed.feed.batch import Batch
from cinefeed.feed.feed import Feed
from cinefeed.feed.inputs import sampler_groups
from cinefeed.feed.settings import Shard, Workers
from cinefeed.feed.targets import FeedSpec
from cinefeed.testing.sources import must

Print = dict[str, bytes]  # of a batch: a digest of each of its arrays
_END = 20  # batches checked at each end of a longer epoch
_HELD = 4  # batches held at once, or 1 where memory= bounds them
_TARGETS: dict[str, Any] = {"regression": np.float32, "binary": np.int64, "multiclass": np.int64}


def check_feed(feed: Feed, *, make: Callable[..., Feed] | None = None) -> None:
    """Check that a feed keeps its promises, else raise AssertionError that names the broken one.

    plan:      each row as often as the sampler says, once with Natural; a batch holds the rows of its draws, each as
               often as `clips_per_video` says, or as many batches hold it
    arrays:    shapes and types are those of `feed.spec`, of each view and of masks too; labels are the manifest's, or
               where batches are mixed shares of classes; weights and `valid` mark padding
    identity:  a batch by its index equals that of an iteration, and one of the same epoch again, byte for byte
    epochs:    finishing one leads to the next; the iteration after an unfinished one begins the next too, unless
               `set_epoch` or `restore` came between; that of an evaluation begins epoch 0; an older iterator raises
    holding:   what you hold of a batch does not change while the epoch goes on
    resuming:  after a state, which is JSON, exactly the batches follow that were missing
    replay:    `replay` gives a row of a batch again, byte for byte, by the address in its parameters

    `make` makes the feed anew with some settings changed, as in `make=lambda **changes: Feed(manifest, ..., **changes)`
    where `changes` come last. It adds that the bytes are the same for 0, 1 and 2 workers, threads and processes, with
    and without prefetch, that another feed resumes from the state, and that two ranks give together what one gives.

    The feed's current epoch is checked, of a long one 20 batches at each end, and then the feed stands where it stood.

    >>> import cinefeed as cf
    >>> manifest = cf.Manifest.from_arrays(np.zeros((5, 8, 16, 16), np.uint8), {"age": [31, 45, 60, 52, 47]})
    >>> check_feed(cf.Feed(
    ...     manifest, target="age", clip=cf.Clip(frames=4), frame=cf.Frame(height=16, width=16, channels=1),
    ...     batch_size=2, workers=2))
    """
    stood, epoch = feed.state(), feed.epoch
    count = len(feed)
    _check_plan(feed, epoch)
    ends = [range(count)] if count <= 2 * _END else [range(_END), range(count - _END, count)]
    prints = {index: _check_batch(feed, index, epoch) for stretch in ends for index in stretch}
    _check_index(feed, prints, epoch=epoch, count=count)
    _check_replay(feed, epoch=epoch)
    if make is not None:
        made = make()
        must(made is not feed, "make() gives the feed itself, not another")
        _must_match(made.batch(0, epoch=epoch), prints[0], "make() makes another feed: batch 0 differs")
    for stretch in ends:
        _check_iteration(feed, prints, stretch, epoch=epoch, count=count)
        _check_holding(feed, prints, stretch, epoch=epoch)
        for taken in sorted({1, len(stretch) // 2, len(stretch)} - {0}):
            _check_resuming(feed, prints, stretch, epoch=epoch, count=count, taken=taken, make=make)
    if count > 1:
        _check_breaking_off(feed, prints, epoch=epoch)
    if make is not None:
        _check_workers(make, prints, ends, epoch=epoch)
        _check_ranks(make, epoch=epoch)
    feed.restore(stood)


def _check_plan(feed: Feed, epoch: int) -> None:
    plan = feed.plan(epoch=epoch)
    rows, total, alike = plan.rows, len(feed.manifest), sampler_groups(feed.manifest, feed.sampler)
    for again in (
        feed.plan(epoch=epoch),
        feed.sampler.plan(feed.labels, seed=feed.settings.seed, epoch=epoch, batch_size=_draws(feed), **alike),
    ):
        must(np.array_equal(rows, again.rows), f"plan: asked again, epoch {epoch} has other rows")
    must(len(rows) == len(plan.occurrence) == len(plan.strata), "plan: its arrays are of different lengths")
    must(bool(len(rows)) and rows.min() >= 0 and rows.max() < total, f"plan: it has rows that none of the {total} is")
    order = np.argsort(rows, kind="stable")
    firsts = np.flatnonzero(np.diff(rows[order], prepend=-1))
    nth = np.arange(len(rows)) - np.repeat(firsts, np.diff(firsts, append=len(rows)))
    must(np.array_equal(plan.occurrence[order], nth), "plan: `occurrence` does not count how often a row came before")
    expected = (
        np.ones(total) if isinstance(feed.sampler, Natural) else feed.sampler.expected_draws(feed.labels, **alike)
    )
    strata = feed.sampler.strata(feed.labels).numbers
    must(np.array_equal(plan.strata, strata[rows]), "plan: `strata` do not belong to its rows")
    _check_counts(np.bincount(rows, minlength=total), expected, "row")
    _check_counts(np.bincount(strata[rows], minlength=strata.max() + 1), np.bincount(strata, expected), "stratum")
    full, rest = divmod(len(rows), _draws(feed) * feed.shard.world_size)
    batches = (full + (rest > 0 and not feed.settings.drop_last)) * _batches(feed)
    must(len(feed) == batches, f"plan: {len(rows)} draws are {batches} batches, len(feed) is {len(feed)}")
    must(batches > 0, f"epoch {epoch} has no batch, so there is nothing to check; take a smaller batch_size")


def _check_counts(drawn: NDArray[Any], expected: NDArray[Any], what: str) -> None:
    """Check that each is drawn as often as expected, rounded down or up."""
    wrong = np.flatnonzero((drawn < np.floor(expected + 1e-6)) | (drawn > np.ceil(expected - 1e-6)))
    if len(wrong):
        first = wrong[0]
        raise AssertionError(f"plan: {what} {first} is drawn {drawn[first]} times, {expected[first]:g} expected")


def _check_batch(feed: Feed, index: int, epoch: int) -> Print:
    """Check shapes, types, labels and padding of one batch, and that its rows are those of its draws."""
    batch = feed.batch(index, epoch=epoch)
    spec, name, size = feed.spec, f"batch {index}", len(batch.ids)
    targets = [(f"[{each.name}]", each.task, each.classes) for each in spec.targets] or [("", spec.task, spec.classes)]
    draws = feed.plan(epoch=epoch).rows
    whole = (index // _batches(feed) + 1) * _draws(feed) * feed.shard.world_size <= len(draws)
    must(0 < size <= spec.batch_size, f"{name} has {size} rows, batch_size is {spec.batch_size}")
    must(not whole or size == spec.batch_size, f"{name} has {size} rows, and is not the last")
    expected: dict[str, tuple[Any, tuple[int, ...]]] = {
        **dict.fromkeys(_clip_arrays(spec), (spec.dtype, spec.clip_shape)),
        "valid": (np.bool_, spec.clip_shape[:1]),
        **{f"covariates[{each.name}]": (np.float32, (each.size,)) for each in spec.covariates},
    }
    masks: tuple[Any, tuple[int, ...]] = (np.uint8, (*spec.clip_shape[:-1], 1))
    if spec.masks:
        expected["masks"] = masks
    if feed.settings.return_parameters:
        must(len(batch.parameters) == size, f"{name} has parameters of {len(batch.parameters)} rows, it has {size}")
    pictures = {"clip": (spec.dtype, spec.clip_shape), "mask": masks if spec.masks else (np.float32, ())}
    for key, task, classes in targets:
        wanted = pictures[task] if task in pictures else (_TARGETS[task], ())
        if spec.soft and classes:
            wanted = (np.float32, (len(classes),) if task == "multiclass" else ())
        expected |= {f"targets{key}": wanted, f"weights{key}": (np.float32, ())}
    arrays = dict(_arrays(batch))
    must(
        arrays.keys() - {"ids", "parameters"} == expected.keys(),
        f"{name} holds {sorted(arrays)}, not {sorted(expected)} and ids",
    )
    for key, (dtype, shape) in expected.items():
        found = arrays[key]
        must(
            found.dtype == dtype and found.shape == (size, *shape),
            f"{name}: {key} are {found.dtype} {found.shape}, the spec says {np.dtype(dtype)} {(size, *shape)}",
        )
    real = batch.ids != ""
    _check_padding(batch, arrays, real, name=name, padded=spec.padded)
    must(feed.shard.world_size > 1 or bool(real.all()), f"{name} has padding rows, and there are no other ranks")
    for key, _, classes in targets:
        values = arrays[f"targets{key}"][arrays[f"weights{key}"] > 0]
        sound = _sound(values, classes, soft=spec.soft)
        must(bool(sound.all()), f"{name}: targets{key} are no labels where weights are above 0")
    if not feed.stats().skipped:  # else other rows stand in for those that cannot be read
        _check_rows(feed, batch, draws, real, index=index, name=name)
    return _print(batch)


def _check_padding(batch: Batch, arrays: Mapping[str, NDArray[Any]], real: Any, *, name: str, padded: bool) -> None:
    for key in [each for each in arrays if each.startswith("weights")]:
        weights = arrays[key]
        must(bool((np.isfinite(weights) & (weights >= 0)).all()), f"{name}: {key} are negative, or not finite")
        must(not weights[~real].any(), f"{name}: {key} of a padding row are not 0")
    must(not batch.valid[~real].any(), f"{name}: a padding row has valid frames")
    must(bool(batch.valid[real].any(axis=1).all()), f"{name}: a row has no valid frame")
    clips = [*(batch.clips.values() if isinstance(batch.clips, Mapping) else [batch.clips])]
    clips += [batch.masks] if batch.masks.size else []
    must(not any(each[~batch.valid].any() for each in clips), f"{name}: frames that are not valid are not zeros")
    must(padded or bool(batch.valid.all()), f"{name} has padding, spec.padded says that no batch has")


def _check_rows(feed: Feed, batch: Batch, draws: Any, real: Any, *, index: int, name: str) -> None:
    """Check that ids are those of the batch's draws, and labels those of the rows; one rank alone knows its places."""
    globally, ids, slot = _draws(feed) * feed.shard.world_size, feed.manifest.column("id"), index // _batches(feed)
    rows = np.repeat(draws[slot * globally : (slot + 1) * globally], feed.settings.batch_size // _draws(feed))
    numbers = {str(ids[int(row)]): int(row) for row in rows}
    strange = [str(each) for each in batch.ids[real] if str(each) not in numbers]
    must(not strange, f"{name} holds {strange[:1]}, which is none of its draws in the plan")
    found = np.array([numbers[str(each)] for each in batch.ids[real]], np.int64)
    if feed.shard.world_size == 1:
        must(np.array_equal(found, rows), f"{name} does not hold the rows of the plan in their order")
    spec, targets, labels = feed.spec, batch.targets, feed.labels[found]
    if spec.target and spec.task not in ("clip", "mask") and not spec.targets and feed.settings.mixing is None:
        told = np.array(spec.classes)[targets[real]] if spec.classes else targets[real]
        must(np.array_equal(told, labels), f"{name}: targets are not the labels of its rows")


def _sound(values: NDArray[Any], classes: Sequence[str], *, soft: bool) -> NDArray[np.bool_]:
    """Return which targets can be: finite numbers, class numbers, or shares of classes that come to one."""
    if not classes:
        return np.asarray(np.isfinite(values))
    if not soft:
        return np.asarray((values >= 0) & (values < len(classes)))
    shares = values if values.ndim == 2 else np.stack([values, 1 - values], axis=1)
    return np.asarray((shares >= 0).all(axis=1) & (np.abs(shares.sum(axis=1) - 1) < 1e-5))


def _check_replay(feed: Feed, *, epoch: int) -> None:
    """Check that the first row of a batch in the middle, and its last row, come again by their addresses."""
    index = feed.settings.clips_per_video.count - 1
    first = feed.replay(epoch, index)
    must(len(first.parameters) == 1, "replay: it gives no parameters")
    address = first.parameters[0]
    must(
        (address.get("epoch"), address.get("index")) == (epoch, index),
        f"replay({epoch}, {index}) says that it is {address}",
    )
    if not feed.settings.return_parameters:
        return
    batch = feed.batch(len(feed) // 2, epoch=epoch)
    for place in sorted({0, int(np.flatnonzero(batch.ids != "").max(initial=0))}):
        told = batch.parameters[place]
        if told:
            again = feed.replay(told["epoch"], told["index"])
            _must_match(again, _print(batch.row(place)), f"replay: clip {told['index']} differs from the one fed")


def _check_index(feed: Feed, prints: dict[int, Print], *, epoch: int, count: int) -> None:
    must(_print(feed.batch(-1, epoch=epoch)) == prints[count - 1], "batch(-1) is not the last batch")
    for beyond in (count, -count - 1):
        try:
            feed.batch(beyond, epoch=epoch)
        except IndexError:
            continue
        raise AssertionError(f"batch({beyond}) of {count} batches does not raise IndexError")


def _check_iteration(feed: Feed, prints: dict[int, Print], stretch: range, *, epoch: int, count: int) -> None:
    batches = _go(feed, epoch, stretch.start)
    for index in stretch:
        _must_match(next(batches, None), prints[index], f"iteration: batch {index} differs from batch({index})")
        if index == stretch.start:
            other = feed.batch(stretch[-1], epoch=epoch)
            what = f"batch({stretch[-1]}) differs while the feed is iterated over"
            _must_match(other, prints[stretch[-1]], what)
            here = epoch if index < count - 1 else _following(feed, epoch)  # the last batch ends the epoch
            must(feed.epoch == here, f"the epoch is {feed.epoch} after batch {index} of {count} of epoch {epoch}")
    if stretch.stop < count:
        return
    must(next(batches, None) is None, f"iteration: batches follow after the {count} of the epoch")
    follows = _following(feed, epoch)
    must(feed.epoch == follows, f"epochs: the epoch is {feed.epoch} after {epoch} was finished, not {follows}")
    first = _print(feed.batch(0, epoch=follows))
    what = f"epochs: epoch {epoch} is not followed by batch 0 of epoch {follows}"
    _must_match(next(iter(feed), None), first, what)


def _check_breaking_off(feed: Feed, prints: dict[int, Print], *, epoch: int) -> None:
    """Check what follows after one batch of an epoch that has more."""
    follows = _following(feed, epoch)
    next(_go(feed, epoch, 0))
    must(feed.epoch == epoch, f"epochs: the epoch is {feed.epoch} after an iteration of epoch {epoch} was broken off")
    feed.restore(feed.state())
    _must_match(next(iter(feed), None), prints[1], "epochs: restore() does not stay in an unfinished epoch")
    feed.set_epoch(epoch)
    _must_match(next(iter(feed), None), prints[0], "epochs: set_epoch() does not begin an unfinished epoch anew")
    older = _go(feed, epoch, 0)
    next(older)
    newer = iter(feed)
    what = f"epochs: the iteration after the unfinished epoch {epoch} does not begin with batch 0 of epoch {follows}"
    _must_match(next(newer, None), _print(feed.batch(0, epoch=follows)), what)
    try:
        next(older)
    except FeedError:
        return
    except StopIteration:
        raise AssertionError(
            "epochs: an iterator ends as if its epoch were complete, though a newer took over"
        ) from None
    raise AssertionError("epochs: an iterator gives batches, though a newer took over")


def _check_holding(feed: Feed, prints: dict[int, Print], stretch: range, *, epoch: int) -> None:
    """Hold views of some batches, while the epoch goes on for the second time."""
    held: deque[tuple[int, Print, dict[str, NDArray[Any]]]] = deque()
    batches = _go(feed, epoch, stretch.start)
    for index in stretch:
        batch = next(batches, None)
        _must_match(batch, prints[index], f"identity: batch {index} of epoch {epoch} differs the second time")
        assert batch is not None
        held.append((index, prints[index], {name: array[:] for name, array in _arrays(batch)}))
        del batch
        if len(held) > (_HELD if feed.settings.workers.memory is None else 1):
            _must_keep(*held.popleft())
    for each in held:
        _must_keep(*each)


def _check_resuming(
    feed: Feed,
    prints: dict[int, Print],
    stretch: range,
    *,
    epoch: int,
    count: int,
    taken: int,
    make: Callable[..., Feed] | None,
) -> None:
    batches = _go(feed, epoch, stretch.start)
    for _ in range(taken):
        next(batches)
    state = feed.state()
    del batches
    try:
        kept = json.loads(json.dumps(state))
    except (TypeError, ValueError) as error:
        raise AssertionError(f"resuming: state() is no JSON: {error}") from error
    must(kept == state, "resuming: state() differs after it was kept as JSON")
    feed.set_epoch(epoch + 2)
    other = feed if make is None else make()
    other.restore(kept)
    start = stretch.start + taken
    what = f"resuming: after {start} of {count} batches, batch"
    follows = iter(other)
    for index in range(start, stretch.stop):
        _must_match(next(follows, None), prints[index], f"{what} {index} does not follow")
    if stretch.stop == count:
        if start < count:
            must(next(follows, None) is None, f"{what}es follow that were given before")
            follows = iter(other)
        first = other.batch(0, epoch=_following(other, epoch))
        _must_match(next(follows, None), _print(first), f"{what} 0 of the next epoch does not follow")


def _check_workers(make: Callable[..., Feed], prints: dict[int, Print], ends: Sequence[range], *, epoch: int) -> None:
    for workers in (
        Workers(count=0),
        Workers(count=1, prefetch=0),
        Workers(count=2, prefetch=3),
        Workers(count=1, backend="process", prefetch=3),
        Workers(count=2, backend="process", prefetch=0),
    ):
        if workers.backend == "process" and not hasattr(os, "memfd_create"):  # Linux alone has them
            continue
        feed = make(workers=workers)
        for stretch in ends:
            batches = _go(feed, epoch, stretch.start)
            for index in stretch:
                _must_match(next(batches, None), prints[index], f"identity: batch {index} differs with {workers}")
            del batches
        feed.close()


def _check_ranks(make: Callable[..., Feed], *, epoch: int) -> None:
    """Check that two ranks have the same number of rows, and give together the rows that one gives, each as it does.

    Where batches are mixed, whole ones alone: what is shared out at an epoch's end is mixed with other rows.
    """
    alone, *ranks = (make(shard=Shard(rank=rank, world_size=size)) for rank, size in ((0, 1), (0, 2), (1, 2)))
    for feed in (alone, *ranks):
        feed.set_epoch(epoch)
    lengths = [len(feed) for feed in ranks]
    must(lengths[0] == lengths[1], f"ranks: one has {lengths[0]} batches, the other {lengths[1]}")
    found: Counter[tuple[bytes, ...]] = Counter()
    count = min(lengths[0], _END // _batches(alone) * _batches(alone) or _batches(alone))
    if alone.settings.mixing is not None:
        count = min(count, len(alone.plan(epoch=epoch).rows) // (2 * _draws(alone)) * _batches(alone))
    for index in range(count):
        batches = [feed.batch(index, epoch=epoch) for feed in ranks]
        sizes = [len(batch.ids) for batch in batches]
        must(sizes[0] == sizes[1], f"ranks: batch {index} has {sizes[0]} rows on one, {sizes[1]} on the other")
        for feed, batch in zip(ranks, batches, strict=True):
            _check_batch(feed, index, epoch)
            found += _rows(batch)
    expected: Counter[tuple[bytes, ...]] = Counter()
    for index in range(min(2 * count, len(alone))):
        expected += _rows(alone.batch(index, epoch=epoch))
    missing, strange = (expected - found).total(), (found - expected).total()
    must(not missing + strange, f"ranks: two lack {missing} rows that one has, and have {strange} that it has not")


def _go(feed: Feed, epoch: int, index: int) -> Iterator[Batch]:
    """Return an iteration of the feed that begins at a batch."""
    feed.set_epoch(epoch)
    after = index % _batches(feed)  # the first of the batches of the same videos
    if index:
        feed.restore({**feed.state(), "draws": (index - after) * feed.global_batch_size})
    batches = iter(feed)
    for _ in range(after):
        next(batches)
    return batches


def _following(feed: Feed, epoch: int) -> int:
    """Return the epoch that follows on one."""
    return 0 if feed.is_evaluation else epoch + 1


def _batches(feed: Feed) -> int:
    """Return how many batches hold the same videos, one after the other."""
    return clips.count if (clips := feed.settings.clips_per_video).interleave else 1


def _draws(feed: Feed) -> int:
    """Return how many draws of the plan those batches hold."""
    return feed.settings.batch_size * _batches(feed) // feed.settings.clips_per_video.count


def _clip_arrays(spec: FeedSpec) -> list[str]:
    """Return the names of the arrays that hold clips."""
    return ["clips"] if spec.stacked or not spec.views else [f"clips[{view}]" for view in spec.views]


def _arrays(batch: Batch) -> Iterator[tuple[str, NDArray[Any]]]:
    """Yield every array of a batch and its name, such as "clips" or "covariates[age]"; parameters as JSON."""
    for each in fields(batch):
        value = getattr(batch, each.name)
        if (each.name == "masks" and not value.size) or (each.name == "parameters" and not value):
            continue
        if each.name == "parameters":
            yield each.name, np.array([json.dumps(told, sort_keys=True) for told in value])
        elif isinstance(value, Mapping):
            yield from ((f"{each.name}[{key}]", array) for key, array in value.items())
        else:
            yield each.name, value


def _print(batch: Batch) -> Print:
    return {name: _digest(array) for name, array in _arrays(batch)}


def _digest(array: NDArray[Any]) -> bytes:
    told = f"{array.dtype}{array.shape}".encode()
    return hashlib.blake2b(told + np.ascontiguousarray(array).tobytes(), digest_size=16).digest()


def _rows(batch: Batch) -> Counter[tuple[bytes, ...]]:
    """Count the rows of a batch, all that it holds of each; padding is left out."""
    arrays = [(name, array) for name, array in _arrays(batch) if name != "ids"]
    return Counter(
        (str(batch.ids[place]).encode(), *(_digest(array[place]) for _, array in arrays))
        for place in np.flatnonzero(batch.ids != "")
    )


def _must_match(batch: Batch | None, expected: Print, message: str) -> None:
    if batch is None:
        raise AssertionError(f"{message}: there is none")
    found = _print(batch)
    differing = sorted(name for name in found.keys() | expected.keys() if found.get(name) != expected.get(name))
    must(not differing, f"{message}: {', '.join(differing)}")


def _must_keep(index: int, expected: Print, held: dict[str, NDArray[Any]]) -> None:
    changed = [name for name, array in held.items() if _digest(array) != expected[name]]
    must(not changed, f"holding: {', '.join(changed)} of batch {index} changed while it was held")
