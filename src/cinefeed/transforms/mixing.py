"""Mixing of the clips of a batch and their labels: MixUp and CutMix.

They need a whole batch, so they are applied after it is assembled and are not part of the transforms of a clip.
`sample` draws the partner of each row, from the random address of the batch. `apply` mixes the clips, `targets` the
labels, `numbers` other values of a row (weights, covariates), and `valid` marks the frames that are not padding in
either clip. All are pure. Rows after the sampled ones (padding) do not change.
"""

import math
from dataclasses import dataclass
from typing import Any, Literal, get_args

import cv2
import numpy as np
from numpy.typing import NDArray

from cinefeed.core.arguments import check_arguments
from cinefeed.core.errors import LabelError, SettingError, did_you_mean
from cinefeed.transforms.base import ClipInfo, Frames, Parameters

Task = Literal["regression", "binary", "multiclass"]
Rule = Literal["blend", "error"]


class _Mixing:
    """Base class: samples a partner and a share per row, and mixes the labels."""

    __slots__ = ()
    alpha: float
    regression: Rule

    def _check(self) -> None:
        kind = type(self).__name__
        number = isinstance(self.alpha, int | float) and not isinstance(self.alpha, bool)
        if not number or not 0 < self.alpha < math.inf:
            raise SettingError(f"{kind}(alpha={self.alpha!r}) must be a positive number")
        if self.regression not in get_args(Rule):
            hint = did_you_mean(str(self.regression), get_args(Rule))
            raise SettingError(f"{kind}(regression={self.regression!r}) is not a choice; {hint}")

    def _draw(self, rng: np.random.Generator, size: int) -> tuple[list[int], list[float]]:
        """Return the partner of each row, and the row's own share: at least a half, so that it keeps its id."""
        shares = rng.beta(self.alpha, self.alpha, size)
        return rng.permutation(size).tolist(), np.maximum(shares, 1 - shares).tolist()

    def targets(
        self, targets: NDArray[Any], parameters: Parameters, *, task: Task, classes: int = 2
    ) -> NDArray[np.float32]:
        """Return soft targets, float32: (batch, classes) for several classes, else (batch,).

        Class numbers become shares of classes, and for a binary task the share of the second class. Numbers are blended
        by the same shares. Raises LabelError for a class number out of range, and for numbers with
        `regression="error"`.
        """
        if task == "regression":
            if self.regression == "error":
                raise LabelError(
                    f"{type(self).__name__}(regression='error') does not mix numbers: a measured label, such as an "
                    "ejection fraction, is not defined for a mixture of two clips; pass regression='blend' to blend "
                    "labels by the same shares, or leave out mixing"
                )
            return self.numbers(np.asarray(targets, np.float32), parameters)
        out_of_range = (targets < 0) | (targets >= classes)
        if out_of_range.any():
            raise LabelError(
                f"class number {targets[out_of_range][0]} is not one of {classes} classes; leave out unlabelled rows"
            )
        if task == "binary":
            return self.numbers(targets.astype(np.float32), parameters)
        return self.numbers(np.eye(classes, dtype=np.float32)[targets], parameters)

    def numbers(self, values: NDArray[Any], parameters: Parameters) -> NDArray[Any]:
        """Return the numbers of each row, (batch, ...), blended with those of its partner, with the same dtype."""
        partners, size = parameters["partners"], len(parameters["partners"])
        shares = np.asarray(parameters["shares"]).reshape(-1, *[1] * (values.ndim - 1))
        result = values.copy()
        result[:size] = shares * values[:size] + (1 - shares) * values[partners]
        return result

    def valid(self, valid: NDArray[np.bool_], parameters: Parameters) -> NDArray[np.bool_]:
        """Return which frames, (batch, frames), are padding neither in a row nor in its partner."""
        partners = parameters["partners"]
        both = valid.copy()
        both[: len(partners)] &= valid[partners]
        return both


@check_arguments()
@dataclass(frozen=True, kw_only=True, slots=True)
class MixUp(_Mixing):
    """Blend each clip of a batch with another one, and their labels by the same shares (Zhang et al., ICLR 2018).

    Shares are drawn from Beta(alpha, alpha): a small alpha mixes little. Numeric labels are blended too, which assumes
    that the label is about linear in the image; with `regression="error"` they raise LabelError.

    >>> mix = MixUp()
    >>> parameters = {"partners": [1, 0], "shares": [0.75, 0.75]}
    >>> mix.apply(np.array([0, 100], np.uint8).reshape(2, 1, 1, 1, 1), parameters).ravel().tolist()
    [25, 75]
    >>> mix.targets(np.array([0, 2]), parameters, task="multiclass", classes=3).tolist()
    [[0.75, 0.0, 0.25], [0.25, 0.0, 0.75]]
    """

    alpha: float = 0.2
    regression: Rule = "blend"

    def __post_init__(self) -> None:
        self._check()

    def sample(self, rng: np.random.Generator, info: ClipInfo, *, size: int) -> Parameters:
        """Draw the partner and the share of each of `size` rows."""
        partners, shares = self._draw(rng, size)
        return {"partners": partners, "shares": shares}

    def apply(self, clips: Frames, parameters: Parameters) -> Frames:
        """Return the clips, (batch, frames, height, width, channels), each blended with its partner."""
        result = clips.copy()
        for row, (partner, share) in enumerate(zip(parameters["partners"], parameters["shares"], strict=True)):
            if partner != row:
                clip, partner_clip = (clips[each].reshape(1, -1) for each in (row, partner))
                if clips.dtype.name in ("float16", "bfloat16"):  # OpenCV cannot add these types
                    blend = share * clip.astype(np.float32) + (1 - share) * partner_clip.astype(np.float32)
                else:
                    blend = cv2.addWeighted(clip, share, partner_clip, 1 - share, 0.0)
                result[row] = blend.reshape(clips.shape[1:])
        return result


@check_arguments()
@dataclass(frozen=True, kw_only=True, slots=True)
class CutMix(_Mixing):
    """Paste a box of another clip into each clip of a batch, and mix their labels by area (Yun et al., ICCV 2019).

    The box is the same in all frames. Its area, as a share of the frame, is drawn from Beta(alpha, alpha) and at most a
    half. A label that is measured in the image, such as an ejection fraction, has no meaning for parts of two images,
    so regression raises LabelError unless `regression="blend"` is set.

    >>> clips = np.array([[1, 1, 1, 1], [9, 9, 9, 9]], np.uint8).reshape(2, 1, 1, 4, 1)
    >>> parameters = {"partners": [1, 0], "shares": [0.75, 1.0], "boxes": [[0, 3, 1, 4], [0, 0, 0, 0]]}
    >>> CutMix().apply(clips, parameters)[0].ravel().tolist()
    [1, 1, 1, 9]
    """

    alpha: float = 1.0
    regression: Rule = "error"

    def __post_init__(self) -> None:
        self._check()

    def sample(self, rng: np.random.Generator, info: ClipInfo, *, size: int) -> Parameters:
        """Draw the partner and the box (top, left, bottom, right) of each of `size` rows, and compute the shares."""
        partners, target_shares = self._draw(rng, size)
        boxes, shares = [], []
        for share in target_shares:
            side = math.sqrt(1 - share)
            height, width = round(side * info.height), round(side * info.width)
            top, left = int(rng.integers(info.height - height + 1)), int(rng.integers(info.width - width + 1))
            boxes.append([top, left, top + height, left + width])
            shares.append(1 - height * width / (info.height * info.width))
        return {"partners": partners, "shares": shares, "boxes": boxes}

    def apply(self, clips: Frames, parameters: Parameters) -> Frames:
        """Return the clips, (batch, frames, height, width, channels), each with a box of its partner."""
        result = clips.copy()
        for row, (partner, box) in enumerate(zip(parameters["partners"], parameters["boxes"], strict=True)):
            rows, columns = slice(box[0], box[2]), slice(box[1], box[3])
            result[row, :, rows, columns] = clips[partner, :, rows, columns]
        return result
