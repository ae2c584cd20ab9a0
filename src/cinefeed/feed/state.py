"""Where a feed stands, as small JSON, and the way back to that place."""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np

from cinefeed.balance import Plan
from cinefeed.errors import FeedError

BETWEEN = "between batches of the same videos"


@dataclass(frozen=True, kw_only=True)
class State:
    """A place in the sequence of epochs. `draws` counts the clips of the epoch that all ranks were given.

    `quarantine` are the rows that could not be read so far, and why: so they go on to count towards `max_bad`. It never
    changes a batch.
    """

    epoch: int
    draws: int
    seed: int
    manifest: str  # fingerprint
    plan: str  # fingerprint of the epoch's
    settings: Mapping[str, str]  # all that a batch depends on beside manifest and seed
    quarantine: list[list[Any]]  # rows, each with a reason

    def as_dict(self) -> dict[str, Any]:
        """Return it as plain data, for JSON."""
        return {**asdict(self), "settings": dict(self.settings)}


def plan_fingerprint(plan: Plan) -> str:
    """Return a fingerprint of which rows are drawn in which order."""
    return hashlib.sha256(np.asarray(plan.rows, "<i8").tobytes()).hexdigest()[:16]


def settings_of(feed: Any) -> dict[str, str]:
    """Return as text all settings of a feed that its batches depend on, beside manifest and seed."""
    spec = feed.spec
    settings = {
        name: repr(getattr(feed, name))
        for name in ("clip", "frame", "transforms", "sampler", "batch_size", "drop_last", "on_error")
    }
    settings["target"] = repr((spec.target, spec.task, spec.classes, spec.targets))
    settings["columns"] = repr((spec.covariates, feed.weight))
    if feed.clips_per_video > 1:
        settings["clips_per_video"] = repr((feed.clips_per_video, feed.spread))
    if spec.views:
        settings["views"] = repr((spec.views, spec.stacked, feed.geometry))
    settings |= {name: repr(getattr(feed, name)) for name in ("mask", "mixing") if getattr(feed, name) is not None}
    return settings


def read_state(
    found: Mapping[str, object],
    *,
    here: State,
    draws: int,
    batches: int,
    world_size: int,
    plan_of: Callable[[int], str],
) -> State:
    """Read a state that `State.as_dict` wrote, for a feed that stands at `here`, of global batches of `draws`.

    `plan_of` returns the fingerprint that the plan of an epoch has here.

    Where clips are spread over `batches`, the same number of ranks can go on between them, any other after them.
    Raises FeedError where the state belongs to another manifest, seed or settings, and names each that differs.
    """
    names = {each.name for each in fields(State)}
    if set(found) != names:
        raise FeedError(f"this is no state of a feed: it has {sorted(found)}, a state has {sorted(names)}")
    state = State(**found)  # type: ignore[arg-type]  # compared below
    between = BETWEEN in state.settings
    settings = {name: value for name, value in here.settings.items() if name != BETWEEN}
    settings |= between_batches(world_size) if between else {}
    differing = [name for name in ("manifest", "seed") if getattr(state, name) != getattr(here, name)]
    keys = {*settings, *state.settings}
    differing += sorted(key for key in keys if state.settings.get(key) != settings.get(key))
    if differing:
        told = "; ".join(
            f"{name}: {state.settings.get(name, getattr(state, name, None))!r} there, "
            f"{settings.get(name, getattr(here, name, None))!r} here"
            for name in differing
        )
        raise FeedError(
            f"the state belongs to another feed, its batches would differ ({told}); make the feed as it was"
        )
    if plan_of(state.epoch) != state.plan:
        raise FeedError(
            f"the plan of epoch {state.epoch} is not the one that the state was taken with, though all settings are "
            "the same: the sampler, or a library that it uses, is of another version; go back to that one, or begin an "
            "epoch anew"
        )
    border = draws if between else draws * batches
    if state.draws % border:
        raise FeedError(
            f"the state stands at draw {state.draws}, no border between global batches of {border}; restore it with "
            "fewer ranks, or with a number of them that divides the one it was taken with"
        )
    return state


def between_batches(world_size: int) -> dict[str, str]:
    """Return what a state has among its settings where it stands between batches over which clips are spread."""
    return {BETWEEN: f"{world_size} ranks"}
