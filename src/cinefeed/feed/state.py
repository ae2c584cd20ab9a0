"""The state of a feed as small JSON, and restoring it."""

import hashlib
import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

import numpy as np

from cinefeed.core.arguments import in_words
from cinefeed.core.errors import FeedError
from cinefeed.core.text import format_count
from cinefeed.data.sampling import Plan

BETWEEN = "between batches of the same videos"


@dataclass(frozen=True, kw_only=True)
class State:
    """A place in the sequence of epochs. `draws` counts the clips of the epoch that were handed out, on all ranks.

    `quarantine` holds the rows that could not be read so far, with the reasons, so that they still count towards
    `max_bad`. It never changes a batch.
    """

    epoch: int
    draws: int
    seed: int
    manifest: str  # fingerprint
    plan: str  # fingerprint of the plan of the epoch
    settings: Mapping[str, str]  # all that a batch depends on beside manifest and seed
    quarantine: list[list[Any]]  # rows, each with a reason

    def as_dict(self) -> dict[str, Any]:
        """Return the state as plain data, for JSON."""
        return {**asdict(self), "settings": dict(self.settings)}


def plan_fingerprint(plan: Plan) -> str:
    """Return a fingerprint of the rows of a plan and their order."""
    return hashlib.sha256(np.asarray(plan.rows, "<i8").tobytes()).hexdigest()[:16]


def read_state(
    stored_state: Mapping[str, object],
    *,
    here: State,
    draws: int,
    batches: int,
    world_size: int,
    plan_of: Callable[[int], str],
    rows_of: Callable[[int], int],
    clips: int,
    exact: bool = True,
) -> tuple[State, int]:
    """Read a state of `State.as_dict`, for a feed whose state is `here` and whose global batches have `draws` draws.

    `plan_of` returns the fingerprint of the plan of an epoch of this feed, `rows_of` its number of rows, each of which
    gives `clips` draws.

    If clips are interleaved over `batches`, only the same number of ranks can continue between these batches.
    With `exact=False`, a place that is not a border of global batches is moved back to the last border. Returns the
    state, and the number of draws that are repeated. Raises FeedError if the state has another manifest, seed or
    settings, with the names of those that differ; for a value that no state has; and for a place that is not a border,
    with the nearest ones.
    """
    names = {each.name for each in fields(State)}
    if set(stored_state) != names:
        raise FeedError(f"this is not a state of a feed: its keys are {sorted(stored_state)}, not {sorted(names)}")
    _check_values(stored_state)
    state = State(**stored_state)  # type: ignore[arg-type]  # compared below
    settings = {name: value for name, value in here.settings.items() if name != BETWEEN}
    stored = {name: value for name, value in state.settings.items() if name != BETWEEN}
    differing = [name for name in ("manifest", "seed") if getattr(state, name) != getattr(here, name)]
    differing += sorted(key for key in {*settings, *stored} if stored.get(key) != settings.get(key))
    if differing:
        differences = "; ".join(
            f"{name}: {stored.get(name, getattr(state, name, None))!r} in the state, "
            f"{settings.get(name, getattr(here, name, None))!r} in this feed"
            for name in differing
        )
        raise FeedError(
            f"the state belongs to another feed, whose batches differ ({differences}); create the feed with the "
            "settings of the state"
        )
    if plan_of(state.epoch) != state.plan:
        raise FeedError(
            f"the plan of epoch {state.epoch} differs from the plan of the state, although all settings are equal: the "
            "sampler, or a library that it uses, has another version; install the earlier version, or start the epoch "
            "again with set_epoch"
        )
    size, ranks = draws // world_size, _ranks_between(state)
    border = size * (ranks or world_size) * batches
    whole = -(-rows_of(state.epoch) * clips // border) * border  # the last batches of an epoch are filled up
    if state.draws > whole:
        raise _invalid("draws", state.draws, f"at most {whole}, the draws of epoch {state.epoch}")
    last, following = _borders(state, draws=draws, batches=batches, world_size=world_size)
    repeated = state.draws - last
    if repeated and ranks:  # an epoch may end with fewer videos than a global batch has places
        buffer, place = divmod(state.draws, size * ranks * batches)
        places = size * ranks
        repeated -= place // places * max(places - (rows_of(state.epoch) - buffer * places), 0)
    if repeated and exact:
        count = state.draws // (size * batches)
        rank_counts = [ranks] if ranks else [number for number in range(1, count + 1) if count % number == 0]
        raise FeedError(
            f"the state is at draw {state.draws} of epoch {state.epoch}"
            f"{', between batches of the same videos' if ranks else ''}, which is not the start of a global "
            f"batch of {world_size} ranks: the nearest are draw {last} and draw {following}. Restore it on "
            f"{', '.join(map(str, rank_counts))} ranks; or with exact=False at draw {last}, which repeats "
            f"{format_count(repeated, 'draw')}"
        )
    return replace(state, draws=last), repeated


def _check_values(state: Mapping[str, Any]) -> None:
    """Raise FeedError for a value of another kind than those of a state."""
    for name in ("epoch", "draws", "seed"):
        if type(state[name]) is not int or state[name] < 0:
            raise _invalid(name, state[name], "a whole number of at least 0")
    for name in ("manifest", "plan"):
        if not isinstance(state[name], str):
            raise _invalid(name, state[name], "a text")
    settings, bad = state["settings"], state["quarantine"]
    if not isinstance(settings, Mapping) or not all(isinstance(each, str) for each in settings.values()):
        raise _invalid("settings", settings, "texts by name")
    if BETWEEN in settings and not re.fullmatch(r"[1-9]\d* ranks", settings[BETWEEN]):
        raise _invalid(f"settings[{BETWEEN!r}]", settings[BETWEEN], "a number of ranks, such as '2 ranks'")
    if not isinstance(bad, list | tuple) or not all(
        isinstance(each, list | tuple) and len(each) == 2 and type(each[0]) is int and each[0] >= 0 for each in bad
    ):
        raise _invalid("quarantine", bad, "a list of pairs of a row and a reason")


def _invalid(name: str, value: object, rule: str) -> FeedError:
    return FeedError(
        f"state {name}={in_words(value)} must be {rule}; restore the state that feed.state() returned, unchanged"
    )


def _ranks_between(state: State) -> int | None:
    """Return the number of ranks of a state that is between batches of the same videos, else None."""
    ranks = state.settings.get(BETWEEN)
    return None if ranks is None else int(ranks.split()[0])


def _borders(state: State, *, draws: int, batches: int, world_size: int) -> tuple[int, int]:
    """Return the nearest borders between global batches before and after the place of a state, in draws.

    If clips are interleaved, another number of ranks can start only after all clips of a video were handed out.
    """
    ranks, border, before, after = _ranks_between(state), draws * batches, state.draws, state.draws
    if ranks == world_size:
        border = draws
    elif ranks is not None:
        videos = draws // world_size * ranks * batches
        before, after = before // videos * videos, -(-after // videos) * videos
    return before // border * border, -(-after // border) * border


def between_batches(world_size: int) -> dict[str, str]:
    """Return the extra setting of a state between batches of the same videos."""
    return {BETWEEN: f"{world_size} ranks"}
