"""Conformance check for feeds, with built-in or custom parts.

The file is longer than 400 lines, because the check is one function with a short one for each property.
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

from cinefeed.core.errors import FeedError
from cinefeed.data.sampling import Natural
from cinefeed.feed.batch import Batch
from cinefeed.feed.feed import Feed
from cinefeed.feed.inputs import sampler_groups
from cinefeed.feed.labels import FeedSpec
from cinefeed.feed.settings import Shard, Workers
from cinefeed.testing.sources import must

Print = dict[str, bytes]  # of a batch: a digest of each of its arrays
_END = 20  # batches checked at each end of a longer epoch
_HELD = 4  # batches held at the same time, or 1 if memory= limits them
_TARGETS: dict[str, Any] = {"regression": np.float32, "binary": np.int64, "multiclass": np.int64}


def check_feed(feed: Feed, *, make: Callable[..., Feed] | None = None) -> None:
    """Check that a feed has all documented properties, else raise AssertionError that names the failed check.

    plan:      each row is drawn as often as the sampler defines, once with Natural; a batch has the rows of its draws,
               each `clips_per_video` times, in one batch or in that many batches
    arrays:    shapes and dtypes are those of `feed.spec`, also of each view and of masks; labels are those of the
               manifest, or shares of classes if batches are mixed; weights and `valid` mark padding
    identity:  a batch by its index equals that of an iteration, and that of the same epoch repeated, byte for byte
    epochs:    a finished epoch is followed by the next one; so is an unfinished one, unless `set_epoch` or `restore`
               was called in between; a new iteration of an evaluation starts epoch 0; an older iterator raises
    holding:   arrays of a batch that the user holds do not change during the epoch
    resuming:  after restoring a state, which is JSON, exactly the missing batches follow
    replay:    `replay` reproduces a row of a batch, byte for byte, from the address in its parameters

    `make` returns a new feed with some settings changed, as in `make=lambda **changes: Feed(manifest, ..., **changes)`,
    with `changes` last. With it these properties are checked too: the bytes are the same for 0, 1 and 2 workers,
    threads and processes, with and without prefetch; another feed resumes from the state; and two ranks together give
    the rows of one.

    The current epoch of the feed is checked; of a long epoch, 20 batches at each end. Then the feed is restored to its
    previous state.

    >>> import cinefeed as cf
    >>> manifest = cf.Manifest.from_arrays(np.zeros((5, 8, 16, 16), np.uint8), {"age": [31, 45, 60, 52, 47]})
    >>> check_feed(cf.Feed(
    ...     manifest, target="age", clip=cf.Clip(frames=4), frame=cf.Frame(height=16, width=16, channels=1),
    ...     batch_size=2, workers=2))
    """
    initial_state, epoch = feed.state(), feed.epoch
    count = len(feed)
    _check_plan(feed, epoch)
    ends = [range(count)] if count <= 2 * _END else [range(_END), range(count - _END, count)]
    prints = {index: _check_batch(feed, index, epoch) for stretch in ends for index in stretch}
    _check_index(feed, prints, epoch=epoch, count=count)
    _check_replay(feed, epoch=epoch)
    if make is not None:
        new_feed = make()
        must(new_feed is not feed, "make() returns the feed itself; return a new feed")
        _must_match(new_feed.batch(0, epoch=epoch), prints[0], "make() returns a different feed: batch 0 differs")
    for stretch in ends:
        _check_iteration(feed, prints, stretch, epoch=epoch, count=count)
        _check_holding(feed, prints, stretch, epoch=epoch)
        for num_batches in sorted({1, len(stretch) // 2, len(stretch)} - {0}):
            _check_resuming(feed, prints, stretch, epoch=epoch, count=count, num_batches=num_batches, make=make)
    if count > 1:
        _check_unfinished_epoch(feed, prints, epoch=epoch)
    if make is not None:
        _check_workers(make, prints, ends, epoch=epoch)
        _check_ranks(make, epoch=epoch)
    feed.restore(initial_state)


def _check_plan(feed: Feed, epoch: int) -> None:
    plan = feed.plan(epoch=epoch)
    rows, total, group_kwargs = plan.rows, len(feed.manifest), sampler_groups(feed.manifest, feed.sampler)
    for second_plan in (
        feed.plan(epoch=epoch),
        feed.sampler.plan(feed.labels, seed=feed.settings.seed, epoch=epoch, batch_size=_draws(feed), **group_kwargs),
    ):
        must(np.array_equal(rows, second_plan.rows), f"plan: a second plan of epoch {epoch} has other rows")
    must(len(rows) == len(plan.occurrence) == len(plan.strata), "plan: its arrays have different lengths")
    must(bool(len(rows)) and rows.min() >= 0 and rows.max() < total, f"plan: rows are not all from 0 to {total - 1}")
    order = np.argsort(rows, kind="stable")
    firsts = np.flatnonzero(np.diff(rows[order], prepend=-1))
    nth = np.arange(len(rows)) - np.repeat(firsts, np.diff(firsts, append=len(rows)))
    must(np.array_equal(plan.occurrence[order], nth), "plan: `occurrence` does not count the earlier draws of a row")
    expected = (
        np.ones(total)
        if isinstance(feed.sampler, Natural)
        else feed.sampler.expected_draws(feed.labels, **group_kwargs)
    )
    strata = feed.sampler.strata(feed.labels).numbers
    must(np.array_equal(plan.strata, strata[rows]), "plan: `strata` are not those of its rows")
    _check_counts(np.bincount(rows, minlength=total), expected, "row")
    _check_counts(np.bincount(strata[rows], minlength=strata.max() + 1), np.bincount(strata, expected), "stratum")
    full, rest = divmod(len(rows), _draws(feed) * feed.shard.world_size)
    batches = (full + (rest > 0 and not feed.settings.drop_last)) * _batches(feed)
    must(len(feed) == batches, f"plan: {len(rows)} draws are {batches} batches, len(feed) is {len(feed)}")
    must(batches > 0, f"epoch {epoch} has no batch, so nothing can be checked; use a smaller batch_size")


def _check_counts(counts: NDArray[Any], expected: NDArray[Any], unit: str) -> None:
    """Check that each row or stratum is drawn as often as expected, rounded down or up."""
    wrong_numbers = np.flatnonzero((counts < np.floor(expected + 1e-6)) | (counts > np.ceil(expected - 1e-6)))
    if len(wrong_numbers):
        first = wrong_numbers[0]
        raise AssertionError(f"plan: {unit} {first} is drawn {counts[first]} times, {expected[first]:g} expected")


def _check_batch(feed: Feed, index: int, epoch: int) -> Print:
    """Check shapes, dtypes, labels and padding of one batch, and that its rows are those of its draws."""
    batch = feed.batch(index, epoch=epoch)
    spec, name, size = feed.spec, f"batch {index}", len(batch.ids)
    targets = [(f"[{each.name}]", each.task, each.classes) for each in spec.targets] or [("", spec.task, spec.classes)]
    draws = feed.plan(epoch=epoch).rows
    is_full = (index // _batches(feed) + 1) * _draws(feed) * feed.shard.world_size <= len(draws)
    must(0 < size <= spec.batch_size, f"{name} has {size} rows, batch_size is {spec.batch_size}")
    must(not is_full or size == spec.batch_size, f"{name} has {size} rows, but is not the last")
    expected: dict[str, tuple[Any, tuple[int, ...]]] = {
        **dict.fromkeys(_clip_arrays(spec), (spec.dtype, spec.clip_shape)),
        "valid": (np.bool_, spec.clip_shape[:1]),
        **{f"covariates[{each.name}]": (np.float32, (each.size,)) for each in spec.covariates},
    }
    masks: tuple[Any, tuple[int, ...]] = (np.uint8, (*spec.clip_shape[:-1], 1))
    if spec.masks:
        expected["masks"] = masks
    if feed.settings.return_parameters:
        must(len(batch.parameters) == size, f"{name} has parameters of {len(batch.parameters)} rows, but {size} rows")
    image_arrays = {"clip": (spec.dtype, spec.clip_shape), "mask": masks if spec.masks else (np.float32, ())}
    for key, task, classes in targets:
        target_array = image_arrays[task] if task in image_arrays else (_TARGETS[task], ())
        if spec.soft and classes:
            target_array = (np.float32, (len(classes),) if task == "multiclass" else ())
        expected |= {f"targets{key}": target_array, f"weights{key}": (np.float32, ())}
    arrays = dict(_arrays(batch))
    must(
        arrays.keys() - {"ids", "parameters"} == expected.keys(),
        f"{name} has {sorted(arrays)}, expected {sorted(expected)} and ids",
    )
    for key, (dtype, shape) in expected.items():
        array = arrays[key]
        must(
            array.dtype == dtype and array.shape == (size, *shape),
            f"{name}: {key} are {array.dtype} {array.shape}, by feed.spec {np.dtype(dtype)} {(size, *shape)}",
        )
    real = batch.ids != ""
    _check_padding(batch, arrays, real, name=name, padded=spec.padded)
    weights = [array for key, array in arrays.items() if key.startswith("weights")]
    equal = spec.weighted or all(
        np.allclose(each[real], 1, atol=1e-6) for each in weights
    )  # a mixture of 1 and 1 is rounded
    must(equal, f"{name} has weights other than 1, but spec.weighted is False")
    must(feed.shard.world_size > 1 or bool(real.all()), f"{name} has padding rows, but there are no other ranks")
    for key, _, classes in targets:
        values = arrays[f"targets{key}"][arrays[f"weights{key}"] > 0]
        is_valid = _valid_targets(values, classes, soft=spec.soft)
        must(bool(is_valid.all()), f"{name}: targets{key} with weights above 0 are not valid labels")
    if not feed.stats().skipped:  # otherwise other rows replace those that cannot be read
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
    must(padded or bool(batch.valid.all()), f"{name} has padding, but spec.padded is False")


def _check_rows(feed: Feed, batch: Batch, draws: Any, real: Any, *, index: int, name: str) -> None:
    """Check that ids are those of the draws, and labels those of the rows; for one rank, check the order too."""
    global_draws, ids, buffer = (
        _draws(feed) * feed.shard.world_size,
        feed.manifest.column("id"),
        index // _batches(feed),
    )
    rows = np.repeat(
        draws[buffer * global_draws : (buffer + 1) * global_draws], feed.settings.batch_size // _draws(feed)
    )
    row_by_id = {str(ids[int(row)]): int(row) for row in rows}
    unexpected = [str(each) for each in batch.ids[real] if str(each) not in row_by_id]
    must(not unexpected, f"{name} has {unexpected[:1]}, which is not among its draws in the plan")
    batch_rows = np.array([row_by_id[str(each)] for each in batch.ids[real]], np.int64)
    if feed.shard.world_size == 1:
        must(np.array_equal(batch_rows, rows), f"{name} does not have the rows of the plan in their order")
    spec, targets, labels = feed.spec, batch.targets, feed.labels[batch_rows]
    if spec.target and spec.task not in ("clip", "mask") and not spec.targets and feed.settings.mixing is None:
        batch_labels = np.array(spec.classes)[targets[real]] if spec.classes else targets[real]
        must(np.array_equal(batch_labels, labels), f"{name}: targets are not the labels of its rows")


def _valid_targets(values: NDArray[Any], classes: Sequence[str], *, soft: bool) -> NDArray[np.bool_]:
    """Return which targets are valid: finite numbers, class numbers, or shares of classes with a sum of one."""
    if not classes:
        return np.asarray(np.isfinite(values))
    if not soft:
        return np.asarray((values >= 0) & (values < len(classes)))
    shares = values if values.ndim == 2 else np.stack([values, 1 - values], axis=1)
    return np.asarray((shares >= 0).all(axis=1) & (np.abs(shares.sum(axis=1) - 1) < 1e-5))


def _check_replay(feed: Feed, *, epoch: int) -> None:
    """Check that the first and the last row of a batch in the middle are reproduced from their addresses."""
    index = feed.settings.clips_per_video.count - 1
    first = feed.replay(epoch, index)
    must(len(first.parameters) == 1, "replay: it returns no parameters")
    address = first.parameters[0]
    must(
        (address.get("epoch"), address.get("index")) == (epoch, index),
        f"replay({epoch}, {index}) has the address {address}",
    )
    if not feed.settings.return_parameters:
        return
    batch = feed.batch(len(feed) // 2, epoch=epoch)
    for place in sorted({0, int(np.flatnonzero(batch.ids != "").max(initial=0))}):
        parameters = batch.parameters[place]
        if parameters:
            replayed_clip = feed.replay(parameters["epoch"], parameters["index"])
            message = f"replay: clip {parameters['index']} differs from that of the batch"
            _must_match(replayed_clip, _print(batch.row(place)), message)


def _check_index(feed: Feed, prints: dict[int, Print], *, epoch: int, count: int) -> None:
    must(_print(feed.batch(-1, epoch=epoch)) == prints[count - 1], "batch(-1) is not the last batch")
    for beyond in (count, -count - 1):
        try:
            feed.batch(beyond, epoch=epoch)
        except IndexError:
            continue
        raise AssertionError(f"batch({beyond}) of {count} batches does not raise IndexError")


def _check_iteration(feed: Feed, prints: dict[int, Print], stretch: range, *, epoch: int, count: int) -> None:
    batches = _iterate_from(feed, epoch, stretch.start)
    for index in stretch:
        _must_match(next(batches, None), prints[index], f"iteration: batch {index} differs from batch({index})")
        if index == stretch.start:
            other = feed.batch(stretch[-1], epoch=epoch)
            _must_match(other, prints[stretch[-1]], f"batch({stretch[-1]}) differs during an iteration")
            expected = epoch if index < count - 1 else _next_epoch(feed, epoch)  # the last batch ends the epoch
            must(feed.epoch == expected, f"the epoch is {feed.epoch} after batch {index} of {count} of epoch {epoch}")
    if stretch.stop < count:
        return
    must(next(batches, None) is None, f"iteration: there are batches after the {count} of the epoch")
    next_epoch = _next_epoch(feed, epoch)
    must(feed.epoch == next_epoch, f"epochs: the epoch is {feed.epoch} after finishing {epoch}, not {next_epoch}")
    first = _print(feed.batch(0, epoch=next_epoch))
    message = f"epochs: epoch {epoch} is not followed by batch 0 of epoch {next_epoch}"
    _must_match(next(iter(feed), None), first, message)


def _check_unfinished_epoch(feed: Feed, prints: dict[int, Print], *, epoch: int) -> None:
    """Check the batches that follow the first batch of an epoch with several."""
    next_epoch = _next_epoch(feed, epoch)
    next(_iterate_from(feed, epoch, 0))
    must(feed.epoch == epoch, f"epochs: the epoch is {feed.epoch} after an unfinished iteration of epoch {epoch}")
    feed.restore(feed.state())
    _must_match(next(iter(feed), None), prints[1], "epochs: restore() does not stay in an unfinished epoch")
    feed.set_epoch(epoch)
    _must_match(next(iter(feed), None), prints[0], "epochs: set_epoch() does not restart an unfinished epoch")
    older = _iterate_from(feed, epoch, 0)
    next(older)
    newer = iter(feed)
    message = f"epochs: the unfinished epoch {epoch} is not followed by batch 0 of epoch {next_epoch}"
    _must_match(next(newer, None), _print(feed.batch(0, epoch=next_epoch)), message)
    try:
        next(older)
    except FeedError:
        return
    except StopIteration:
        raise AssertionError(
            "epochs: an iterator ends as after a complete epoch, although a newer one replaced it"
        ) from None
    raise AssertionError("epochs: an iterator returns batches, although a newer one replaced it")


def _check_holding(feed: Feed, prints: dict[int, Print], stretch: range, *, epoch: int) -> None:
    """Check that views of batches do not change while a second iteration of the epoch continues."""
    held: deque[tuple[int, Print, dict[str, NDArray[Any]]]] = deque()
    batches = _iterate_from(feed, epoch, stretch.start)
    for index in stretch:
        batch = next(batches, None)
        _must_match(batch, prints[index], f"identity: batch {index} of epoch {epoch} differs in a second iteration")
        assert batch is not None
        held.append((index, prints[index], {name: array[:] for name, array in _arrays(batch)}))
        del batch
        if len(held) > (_HELD if feed.settings.workers.memory is None else 1):
            _must_be_unchanged(*held.popleft())
    for held_batch in held:
        _must_be_unchanged(*held_batch)


def _check_resuming(
    feed: Feed,
    prints: dict[int, Print],
    stretch: range,
    *,
    epoch: int,
    count: int,
    num_batches: int,
    make: Callable[..., Feed] | None,
) -> None:
    batches = _iterate_from(feed, epoch, stretch.start)
    for _ in range(num_batches):
        next(batches)
    state = feed.state()
    del batches
    try:
        json_state = json.loads(json.dumps(state))
    except (TypeError, ValueError) as error:
        raise AssertionError(f"resuming: state() is not JSON: {error}") from error
    must(json_state == state, "resuming: state() differs after writing and reading it as JSON")
    feed.set_epoch(epoch + 2)
    other = feed if make is None else make()
    other.restore(json_state)
    start = stretch.start + num_batches
    context = f"resuming after {start} of {count} batches"
    batches = iter(other)
    for index in range(start, stretch.stop):
        _must_match(next(batches, None), prints[index], f"{context}: batch {index} does not follow")
    if stretch.stop == count:
        if start < count:
            must(next(batches, None) is None, f"{context}: earlier batches follow")
            batches = iter(other)
        first = other.batch(0, epoch=_next_epoch(other, epoch))
        _must_match(next(batches, None), _print(first), f"{context}: batch 0 of the next epoch does not follow")


def _check_workers(make: Callable[..., Feed], prints: dict[int, Print], ends: Sequence[range], *, epoch: int) -> None:
    for workers in (
        Workers(count=0),
        Workers(count=1, prefetch=0),
        Workers(count=2, prefetch=3),
        Workers(count=1, backend="process", prefetch=3),
        Workers(count=2, backend="process", prefetch=0),
    ):
        if workers.backend == "process" and not hasattr(os, "memfd_create"):  # they need Linux
            continue
        feed = make(workers=workers)
        for stretch in ends:
            batches = _iterate_from(feed, epoch, stretch.start)
            for index in stretch:
                _must_match(next(batches, None), prints[index], f"identity: batch {index} differs with {workers}")
            del batches
        feed.close()


def _check_ranks(make: Callable[..., Feed], *, epoch: int) -> None:
    """Check that two ranks have the same number of rows, and together give the same rows as one.

    If batches are mixed, only whole ones are compared: at the end of an epoch, rows are mixed with others.
    """
    one_rank, *ranks = (make(shard=Shard(rank=rank, world_size=size)) for rank, size in ((0, 1), (0, 2), (1, 2)))
    for feed in (one_rank, *ranks):
        feed.set_epoch(epoch)
    lengths = [len(feed) for feed in ranks]
    must(lengths[0] == lengths[1], f"ranks: one has {lengths[0]} batches, the other {lengths[1]}")
    rank_rows: Counter[tuple[bytes, ...]] = Counter()
    count = min(lengths[0], _END // _batches(one_rank) * _batches(one_rank) or _batches(one_rank))
    if one_rank.settings.mixing is not None:
        count = min(count, len(one_rank.plan(epoch=epoch).rows) // (2 * _draws(one_rank)) * _batches(one_rank))
    for index in range(count):
        batches = [feed.batch(index, epoch=epoch) for feed in ranks]
        sizes = [len(batch.ids) for batch in batches]
        must(sizes[0] == sizes[1], f"ranks: batch {index} has {sizes[0]} rows on one, {sizes[1]} on the other")
        for feed, batch in zip(ranks, batches, strict=True):
            _check_batch(feed, index, epoch)
            rank_rows += _rows(batch)
    expected: Counter[tuple[bytes, ...]] = Counter()
    for index in range(min(2 * count, len(one_rank))):
        expected += _rows(one_rank.batch(index, epoch=epoch))
    missing, extra = (expected - rank_rows).total(), (rank_rows - expected).total()
    must(not missing + extra, f"ranks: two ranks lack {missing} rows of one rank, and have {extra} others")


def _iterate_from(feed: Feed, epoch: int, index: int) -> Iterator[Batch]:
    """Return an iteration of the feed that starts at a batch."""
    feed.set_epoch(epoch)
    after = index % _batches(feed)  # the first of the batches of the same videos
    if index:
        feed.restore({**feed.state(), "draws": (index - after) * feed.global_batch_size})
    batches = iter(feed)
    for _ in range(after):
        next(batches)
    return batches


def _next_epoch(feed: Feed, epoch: int) -> int:
    """Return the epoch after `epoch`."""
    return 0 if feed.is_evaluation else epoch + 1


def _batches(feed: Feed) -> int:
    """Return the number of consecutive batches with the same videos."""
    return clips.count if (clips := feed.settings.clips_per_video).interleave else 1


def _draws(feed: Feed) -> int:
    """Return the number of draws of the plan in those batches."""
    return feed.settings.batch_size * _batches(feed) // feed.settings.clips_per_video.count


def _clip_arrays(spec: FeedSpec) -> list[str]:
    """Return the names of the arrays that hold clips."""
    return ["clips"] if spec.stacked or not spec.views else [f"clips[{view}]" for view in spec.views]


def _arrays(batch: Batch) -> Iterator[tuple[str, NDArray[Any]]]:
    """Yield the name and value of every array of a batch, such as "clips" or "covariates[age]"; parameters as JSON."""
    for field in fields(batch):
        value = getattr(batch, field.name)
        if (field.name == "masks" and not value.size) or (field.name == "parameters" and not value):
            continue
        if field.name == "parameters":
            yield field.name, np.array([json.dumps(each, sort_keys=True) for each in value])
        elif isinstance(value, Mapping):
            yield from ((f"{field.name}[{key}]", array) for key, array in value.items())
        else:
            yield field.name, value


def _print(batch: Batch) -> Print:
    return {name: _digest(array) for name, array in _arrays(batch)}


def _digest(array: NDArray[Any]) -> bytes:
    header = f"{array.dtype}{array.shape}".encode()
    return hashlib.blake2b(header + np.ascontiguousarray(array).tobytes(), digest_size=16).digest()


def _rows(batch: Batch) -> Counter[tuple[bytes, ...]]:
    """Count the rows of a batch by digests of all their arrays; padding is left out."""
    arrays = [(name, array) for name, array in _arrays(batch) if name != "ids"]
    return Counter(
        (str(batch.ids[place]).encode(), *(_digest(array[place]) for _, array in arrays))
        for place in np.flatnonzero(batch.ids != "")
    )


def _must_match(batch: Batch | None, expected: Print, message: str) -> None:
    if batch is None:
        raise AssertionError(f"{message}: there is no batch")
    prints = _print(batch)
    differing = sorted(name for name in prints.keys() | expected.keys() if prints.get(name) != expected.get(name))
    must(not differing, f"{message}: {', '.join(differing)}")


def _must_be_unchanged(index: int, expected: Print, held: dict[str, NDArray[Any]]) -> None:
    changed_names = [name for name, array in held.items() if _digest(array) != expected[name]]
    must(not changed_names, f"holding: {', '.join(changed_names)} of batch {index} changed while it was held")
