"""The reference network, a training step three ways: folded, with `TimeDistributed`, and written by hand in PyTorch.

Run: python -m benchmarks.models [--batch 2] [--frames 25] [--side 150] [--runs 7] [--threads 2]

folded            `cinefeed.models.reference_cnn_lstm`: frames are rows of one batch for the CNN
TimeDistributed   the same layers, and the same weights, in `keras.layers.TimeDistributed`: the CNN frame by frame
by hand           the same network in plain PyTorch, its step written out (forward, L2, backward, Adam)

All of them run in one process, turn by turn, on the same clips; medians count. Before that all three predict for the
same clips with the same weights, and must agree.
"""

import argparse
import os
import statistics
import time
from collections.abc import Callable, Iterator
from functools import partial

os.environ["KERAS_BACKEND"] = "torch"  # the peer by hand is torch, and the ratio is one of one library

import keras
import numpy as np
import torch
from keras import layers
from torch import nn

from benchmarks.rows import Row, contestants, in_turns
from cinefeed.models import reference_cnn_lstm

L2, RATE, UNITS, DROPOUT = 0.001, 1e-4, 128, 0.3
MOST_FAR = 1e-3  # difference of predictions, as a share of them


def of_frame(shape: tuple[int, int, int]) -> keras.Model:
    """Return the CNN of the reference network for one frame."""
    frame = keras.Input(shape)

    def convolve(x: keras.KerasTensor, filters: int, size: int = 3, **options: object) -> keras.KerasTensor:
        x = layers.Conv2D(filters, size, kernel_regularizer=keras.regularizers.L2(L2), **options)(x)
        return layers.Activation("selu")(layers.BatchNormalization()(x))

    x = convolve(frame, 32, size=5, strides=2, padding="same")
    x = layers.MaxPooling2D()(convolve(x, 32, padding="valid"))
    for filters in (64, 128, 256, 512):
        for _ in range(2):
            x = convolve(x, filters, padding="same")
        x = layers.MaxPooling2D()(x)
        if filters < 512:
            x = layers.SpatialDropout2D(DROPOUT)(x)
    return keras.Model(frame, layers.Flatten()(x), name="of_frame")


def time_distributed(clip_shape: tuple[int, int, int, int]) -> keras.Model:
    """Return the reference network with its CNN in `TimeDistributed`, as the 2020 system had it."""
    clips = keras.Input(clip_shape, name="clips")
    x = layers.TimeDistributed(of_frame(clip_shape[1:]))(clips)
    x = layers.Flatten()(layers.LSTM(UNITS, return_sequences=True)(x))
    x = layers.Dense(1)(layers.Dense(128, activation="selu")(x))
    return keras.Model({"clips": clips}, x, name="time_distributed")


class ByHand(nn.Module):
    """The reference network in PyTorch: frames folded into the batch, channels first."""

    def __init__(self, clip_shape: tuple[int, int, int, int]) -> None:
        super().__init__()
        frames, height, width, channels = clip_shape
        # Keras' "same" at stride 2 pads an even side by 1 before and 2 after, an odd one by 2 and 2
        left, top = (2 if side % 2 else 1 for side in (width, height))
        parts: list[nn.Module] = [nn.ZeroPad2d((left, 2, top, 2)), nn.Conv2d(channels, 32, 5, stride=2)]
        parts += [*self.norm(32), nn.Conv2d(32, 32, 3), *self.norm(32), nn.MaxPool2d(2)]
        maps = 32
        for filters in (64, 128, 256, 512):
            for _ in range(2):
                parts += [nn.Conv2d(maps, filters, 3, padding=1), *self.norm(filters)]
                maps = filters
            parts.append(nn.MaxPool2d(2))
            if filters < 512:
                parts.append(nn.Dropout2d(DROPOUT))
        self.cnn = nn.Sequential(*parts)
        with torch.no_grad():
            features = self.cnn(torch.zeros(2, channels, height, width)).flatten(1).shape[1]
        self.lstm = nn.LSTM(features, UNITS, batch_first=True)
        self.lstm.bias_hh_l0.requires_grad_(False)  # Keras has one bias, torch the sum of two
        self.head = nn.Sequential(nn.Linear(frames * UNITS, 128), nn.SELU(), nn.Linear(128, 1))

    @staticmethod
    def norm(maps: int) -> list[nn.Module]:
        """Return batch norm as Keras has it, and SELU."""
        return [nn.BatchNorm2d(maps, eps=1e-3, momentum=0.01), nn.SELU()]

    def forward(self, clips: torch.Tensor) -> torch.Tensor:
        """Return the predictions for clips (batch, frames, height, width, channels)."""
        batch, frames = clips.shape[:2]
        x = self.cnn(clips.flatten(0, 1).permute(0, 3, 1, 2))
        # Keras flattens with the channels last
        x, _ = self.lstm(x.permute(0, 2, 3, 1).reshape(batch, frames, -1))
        scores: torch.Tensor = self.head(x.flatten(1))
        return scores

    def penalty(self) -> torch.Tensor:
        """Return the L2 penalty of the convolutions' kernels."""
        kernels = [each.weight for each in self.cnn if isinstance(each, nn.Conv2d)]
        return L2 * torch.stack([kernel.square().sum() for kernel in kernels]).sum()


def give_weights(by_hand: ByHand, model: keras.Model) -> None:
    """Give the network by hand the weights of the folded one, layer by layer."""
    kinds = (layers.Conv2D, layers.BatchNormalization, layers.LSTM, layers.Dense)
    theirs = iter([each for each in model.layers if isinstance(each, kinds)])
    ours = [*by_hand.cnn, by_hand.lstm, *by_hand.head]

    def numbers(values: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(np.ascontiguousarray(values))

    with torch.no_grad():
        for each in ours:
            if isinstance(each, nn.Conv2d):
                kernel, bias = next(theirs).get_weights()
                each.weight.copy_(numbers(kernel.transpose(3, 2, 0, 1)))
                each.bias.copy_(numbers(bias))
            elif isinstance(each, nn.BatchNorm2d):
                for ours_is, value in zip(
                    (each.weight, each.bias, each.running_mean, each.running_var),
                    next(theirs).get_weights(),
                    strict=True,
                ):
                    ours_is.copy_(numbers(value))
            elif isinstance(each, nn.LSTM):
                kernel, recurrent, bias = next(theirs).get_weights()  # gates in the order i, f, c, o, as in torch
                each.weight_ih_l0.copy_(numbers(kernel.T))
                each.weight_hh_l0.copy_(numbers(recurrent.T))
                each.bias_ih_l0.copy_(numbers(bias))
                each.bias_hh_l0.zero_()
            elif isinstance(each, nn.Linear):
                kernel, bias = next(theirs).get_weights()
                each.weight.copy_(numbers(kernel.T))
                each.bias.copy_(numbers(bias))


def differences(
    folded: keras.Model, distributed: keras.Model, by_hand: ByHand, clips: torch.Tensor
) -> dict[str, float]:
    """Return how far each of the others is from what the folded network predicts, as a share of it."""
    expected = folded({"clips": clips}, training=False).detach().numpy()
    by_hand.eval()
    with torch.no_grad():
        results = {
            "TimeDistributed": distributed({"clips": clips}, training=False).detach().numpy(),
            "by hand": by_hand(clips).numpy(),
        }
    by_hand.train()
    return {name: float(np.abs(each - expected).max() / np.abs(expected).max()) for name, each in results.items()}


def steps(
    folded: keras.Model, distributed: keras.Model, by_hand: ByHand, clips: torch.Tensor, targets: torch.Tensor
) -> dict[str, Callable[[], object]]:
    """Return a training step of each, by name."""
    results: dict[str, Callable[[], object]] = {}
    for name, model in (("folded", folded), ("TimeDistributed", distributed)):
        model.compile(optimizer=keras.optimizers.Adam(RATE), loss="mse")
        results[name] = lambda model=model: model.train_on_batch({"clips": clips}, targets)
    optimiser = torch.optim.Adam(by_hand.parameters(), lr=RATE, eps=1e-7)

    def step() -> float:
        optimiser.zero_grad()
        loss = nn.functional.mse_loss(by_hand(clips), targets) + by_hand.penalty()
        loss.backward()
        optimiser.step()
        return float(loss.detach())

    results["by hand"] = step
    return results


def networks(*, batch: int, frames: int, side: int) -> tuple[dict[str, Callable[[], object]], dict[str, float], str]:
    """Return a training step of each network, how far their predictions are apart, and the numbers of parameters."""
    keras.utils.set_random_seed(0)
    shape = (frames, side, side, 1)
    folded, distributed, by_hand = reference_cnn_lstm(shape), time_distributed(shape), ByHand(shape)
    distributed.set_weights(folded.get_weights())
    give_weights(by_hand, folded)
    rng = np.random.default_rng(0)
    clips = torch.from_numpy(rng.random((batch, *shape), np.float32))
    targets = torch.from_numpy(rng.random((batch, 1), np.float32))
    count = sum(each.numel() for each in by_hand.parameters() if each.requires_grad)
    text = f"{folded.count_params():,} parameters; by hand {count:,}, without the means and variances of batch norm"
    far = differences(folded, distributed, by_hand, clips)
    return steps(folded, distributed, by_hand, clips, targets), far, text


def measure(ways: dict[str, Callable[[], object]], *, runs: int) -> dict[str, list[float]]:
    """Return the milliseconds of each step and run."""
    for step in ways.values():
        step()  # the first makes the optimiser's variables, and more

    def milliseconds(step: Callable[[], object]) -> float:
        started = time.perf_counter()
        step()
        return 1e3 * (time.perf_counter() - started)

    return in_turns({name: partial(milliseconds, step) for name, step in ways.items()}, runs=runs)


def rows(*, quick: bool) -> Iterator[Row]:
    """Yield the row of the benchmarks page."""
    torch.set_num_threads(2)
    frames, side = (9, 96) if quick else (25, 150)
    ways, far, _ = networks(batch=2, frames=frames, side=side)
    names = {
        "folded": "cinefeed, reference_cnn_lstm",
        "TimeDistributed": "Keras, TimeDistributed, as in 2020",
        "by hand": "plain PyTorch",
    }
    values = measure(ways, runs=1 if quick else 7)
    yield Row(
        what=f"2020 network, 2 clips of {frames} x {side} x {side}",
        unit="ms a step",
        check="Predictions with the same weights were compared, up to a part in a thousand.",
        higher_is_better=False,
        contestants=contestants(
            {names[name]: each for name, each in values.items()},
            problems={
                names[name]: f"predictions differ by {value:.1e}" for name, value in far.items() if value > MOST_FAR
            },
        ),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--frames", type=int, default=25)
    parser.add_argument("--side", type=int, default=150)
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    ways, far, text = networks(batch=args.batch, frames=args.frames, side=args.side)
    print(text)
    print("predictions differ by", ", ".join(f"{value:.1e} ({name})" for name, value in far.items()))
    if max(far.values()) > MOST_FAR:
        raise SystemExit("they are not the same network")
    timings = measure(ways, runs=args.runs)
    print(f"{args.batch} clips {args.frames} x {args.side} x {args.side}, {args.threads} threads, {args.runs} runs")
    for name, each in timings.items():
        print(f"{name:16} {statistics.median(each):8.0f} ms a step   (from {min(each):.0f} to {max(each):.0f})")
    for name, aim in (("TimeDistributed", "aim: 1.4 or more"), ("by hand", "aim: 0.8 or more, 1.25 times as long")):
        ratios = [other / ours for ours, other in zip(timings["folded"], timings[name], strict=True)]
        print(f"{name} / folded: {statistics.median(ratios):.2f} (from {min(ratios):.2f} to {max(ratios):.2f}; {aim})")


if __name__ == "__main__":
    main()
