"""Drawing an epoch: the systematic drawer beside chance, and what a million labels cost.

Run it with `python -m benchmarks.drawing [--epochs 100] [--figures docs]`. Ejection fractions drawn as the demo draws
them, 20 bins, UniformLabels(strength=1), as many draws as labels, batches of 16. "chance" is multinomial sampling with
the same expected draws, torch's WeightedRandomSampler (where torch is not installed NumPy's choice, which is the same).

KS       distance of the fed labels to the uniform distribution between the first and the last edge; "off" is how far it
         is from that of the expected draws themselves
missed   videos that are not drawn in an epoch, and in none of ten epochs one after the other
batches  the largest distance of a bin's draws from its share, in any batch of 16
"""

import argparse
import time
import tracemalloc
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cinefeed.data.sampling import BalancedClasses, UniformLabels
from cinefeed.data.sampling.measure import ks_to_uniform
from cinefeed.demo import draw_ejection_fraction
from cinefeed.reports.balance import balance_figure, chance_figure

TEN = 10  # epochs
BATCH = 16


def demo_labels(count: int, *, seed: int) -> NDArray[np.float64]:
    """Return ejection fractions, skewed as the demo's."""
    rng = np.random.default_rng(seed)
    few = np.array([draw_ejection_fraction(rng) for _ in range(min(count, 20_000))])
    return few if count <= len(few) else np.clip(rng.choice(few, count) + rng.normal(0, 0.05, count), 15, 75)


@dataclass
class PlanStatistics:
    """What some epochs of one way to draw came to."""

    name: str
    ks: NDArray[np.float64]
    ks_off: NDArray[np.float64]
    missed_in_epoch: NDArray[np.int64]
    missed_in_ten: NDArray[np.int64]
    off_in_batches: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))

    def __str__(self) -> str:
        return (
            f"  {self.name:12}{self.ks.mean():10.4f} +- {self.ks.std():.4f}{self.ks_off.max():12.5f}"
            f"{self.missed_in_epoch.mean():10.1f}{self.missed_in_ten.mean():10.1f}{self.off_in_batches.max():10.2f}"
        )


def by_chance(expected: NDArray[np.float64], draws: int, epoch: int) -> NDArray[np.int64]:
    """Return rows drawn at random with replacement, in proportion to `expected`."""
    try:
        import torch
        from torch.utils.data import WeightedRandomSampler
    except ImportError:
        rng = np.random.default_rng(epoch)
        return rng.choice(len(expected), draws, p=expected / expected.sum())
    generator = torch.Generator().manual_seed(epoch)
    return np.array(list(WeightedRandomSampler(expected.tolist(), draws, generator=generator)))


def compare(
    labels: NDArray[np.float64], *, bins: int, epochs: int, chance: Callable[..., NDArray[np.int64]] = by_chance
) -> tuple[PlanStatistics, PlanStatistics]:
    """Return what the systematic drawer and chance make of the same expected draws."""
    sampler = UniformLabels(bins=bins)
    expected, strata = sampler.expected_draws(labels), sampler.strata(labels).numbers
    share = np.bincount(strata, expected) * BATCH / expected.sum()
    low, high = float(labels.min()), float(labels.max())
    expected_distance = ks_to_uniform(labels, weights=expected, low=low, high=high)
    ways = {
        "systematic": lambda epoch: sampler.plan(labels, seed=1, epoch=epoch, batch_size=BATCH).rows,
        "chance": lambda epoch: chance(expected, len(labels), epoch),
    }
    table_rows = []
    for name, way in ways.items():
        rows = [way(epoch) for epoch in range(epochs)]
        counts = np.stack([np.bincount(each, minlength=len(labels)) for each in rows])
        ks = np.array([ks_to_uniform(labels, weights=each, low=low, high=high) for each in counts])
        tens = counts[: epochs // TEN * TEN].reshape(-1, TEN, len(labels)).sum(axis=1)
        batches = [strata[each[: len(each) // BATCH * BATCH]].reshape(-1, BATCH) for each in rows]
        off = [max(np.abs(np.bincount(b, minlength=len(share)) - share).max() for b in each) for each in batches]
        table_rows.append(
            PlanStatistics(
                name,
                ks=ks,
                ks_off=np.abs(ks - expected_distance),
                missed_in_epoch=(counts == 0).sum(axis=1),
                missed_in_ten=(tens == 0).sum(axis=1),
                off_in_batches=np.array(off),
            )
        )
    return table_rows[0], table_rows[1]


def cost(rows: int) -> None:
    """Print the time and the memory of expected draws and a plan."""
    labels = demo_labels(rows, seed=0)
    classes = np.array(["normal", "mildly reduced", "reduced"])[np.digitize(-labels, [-50, -40])]
    for sampler, options in (
        (UniformLabels(bins=20), labels),
        (UniformLabels(), labels.round()),
        (BalancedClasses(), classes),
    ):
        seconds = []
        for epoch in range(5):
            began = time.perf_counter()
            sampler.expected_draws(options)
            sampler.plan(options, epoch=epoch, batch_size=BATCH)
            seconds.append(time.perf_counter() - began)
        tracemalloc.start()
        sampler.expected_draws(options)
        sampler.plan(options, batch_size=BATCH)
        peak = tracemalloc.get_traced_memory()[1] / 1e6
        tracemalloc.stop()
        print(
            f"  {type(sampler).__name__:18}{np.median(seconds):8.2f} s (least {min(seconds):.2f}){peak:8.0f} MB at most"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=100)
    parser.add_argument("--figures", type=Path, help="folder to write balance.svg and drawing.svg to")
    args = parser.parse_args()
    epochs = max(args.epochs, TEN)
    labels = demo_labels(2000, seed=0)
    low, high = float(labels.min()), float(labels.max())
    expected_distance = ks_to_uniform(labels, weights=UniformLabels(bins=20).expected_draws(labels), low=low, high=high)
    raw = ks_to_uniform(labels, weights=np.ones(2000), low=low, high=high)
    print(
        f"2,000 labels, 20 bins, {epochs} epochs; KS of the raw labels {raw:.3f}, "
        f"of the expected draws {expected_distance:.4f}"
    )
    print(f"  {'':12}{'KS to uniform':>18}{'off at most':>13}{'missed':>10}{'of ten':>10}{'batches':>9}")
    ways = compare(labels, bins=20, epochs=epochs)
    for each in ways:
        print(each)
    if args.figures is not None:
        report = UniformLabels(bins=20).report(labels, seed=1, batch_size=BATCH)
        svg = balance_figure(report.as_dict(), name="ejection fraction (%)")
        (args.figures / "balance.svg").write_text(svg)
        (args.figures / "drawing.svg").write_text(
            chance_figure({each.name: each.ks for each in ways}, expected=expected_distance)
        )
        print(f"\n{report}\n")
    print("\na million labels, expected draws and plan, batches of 16")
    cost(1_000_000)


if __name__ == "__main__":
    main()
