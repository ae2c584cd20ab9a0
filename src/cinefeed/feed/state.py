"""Where a feed stands, as small JSON, and the way back to that place."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from cinefeed.errors import FeedError


@dataclass(frozen=True, kw_only=True)
class State:
    """A place in the sequence of epochs. `draws` counts those of the epoch's plan that all ranks were given."""

    epoch: int
    draws: int
    seed: int
    manifest: str  # fingerprint
    settings: Mapping[str, str]  # all that a batch depends on beside manifest and seed

    def as_dict(self) -> dict[str, Any]:
        """Return it as plain data, for JSON."""
        return {**asdict(self), "settings": dict(self.settings)}


def read_state(found: Mapping[str, object], *, here: State, draws: int) -> State:
    """Read a state that `State.as_dict` wrote, for a feed that stands at `here`, of global batches of `draws`.

    Raises FeedError where it belongs to another manifest, seed or settings, and names each that differs.
    """
    names = {each.name for each in fields(State)}
    if set(found) != names:
        raise FeedError(f"this is no state of a feed: it has {sorted(found)}, a state has {sorted(names)}")
    state = State(**found)  # type: ignore[arg-type]  # compared below
    differing = [name for name in ("manifest", "seed") if getattr(state, name) != getattr(here, name)]
    keys = {*here.settings, *state.settings}
    differing += sorted(key for key in keys if state.settings.get(key) != here.settings.get(key))
    if differing:
        told = "; ".join(
            f"{name}: {state.settings.get(name, getattr(state, name, None))!r} there, "
            f"{here.settings.get(name, getattr(here, name, None))!r} here"
            for name in differing
        )
        raise FeedError(
            f"the state belongs to another feed, its batches would differ ({told}); make the feed as it was"
        )
    if state.draws % draws:
        raise FeedError(
            f"the state stands at draw {state.draws}, no border between global batches of {draws}; restore it with "
            "fewer ranks, or with a number of them that divides the one it was taken with"
        )
    return state
