"""Rows whose pictures are nearly the same: every pair of fingerprints that is near, without comparing all in full."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

# 1 - cosine of two fingerprints. On `pocus` (77) and `lips` (566 mouths, many of one speaker) a true copy under another
# patient lies at 0.031, the nearest other pairs at 0.189 (one examination) and 0.180 (two words of one speaker). Copies
# encoded anew, halved or stretched stay under 0.051, cropped by 1 % a side under 0.045, by 2 % under 0.128.
NEAR = 0.12
MOST_PAIRS = 1_000_000
_COARSE, _SHARE = 64, 0.5  # directions of the first comparison, at least, and the share that they hold of all
_EXACT = 4096  # up to so many, all pairs are compared in full at once
_SAMPLE = 20_000  # fingerprints that the directions are found from
_ENTRIES = 1 << 24  # of a block of the first comparison: 64 MB
_ROUNDING = 1e-4


class Near(NamedTuple):
    """Pairs of rows, the nearest first, and whether there were too many to list."""

    first: NDArray[np.int64]
    second: NDArray[np.int64]
    distance: NDArray[np.float64]
    cut: bool


def near_pairs(prints: NDArray[np.int8], *, near: float = NEAR, most: int = MOST_PAIRS) -> Near:
    """Return every pair of rows with fingerprints nearer than `near`; a row of zeros is like none.

    Of rows with one and the same fingerprint, the first is paired with each other one and stands for them, so that a
    thousand copies are no million pairs. The others are compared in the directions in which the set differs most:
    there no two are further apart than in all, so that none is missed, and the few that are left are compared in full,
    in whole numbers, the same on every machine. 100,000 rows of 720 numbers took 15 s on two cores.
    """
    rows = np.flatnonzero(prints.any(axis=1))
    as_bytes = np.ascontiguousarray(prints[rows]).view(np.dtype((np.void, prints.shape[1]))).ravel()
    _, place, which = np.unique(as_bytes, return_index=True, return_inverse=True)
    leader = rows[place][which]
    same = np.flatnonzero(leader != rows)
    first, second, distance, cut = _compare(prints, np.sort(rows[place]), near=near, most=most)
    first = np.concatenate([leader[same], first])
    second = np.concatenate([rows[same], second])
    distance = np.concatenate([np.zeros(len(same)), distance])
    ranks = np.lexsort((second, first, distance))
    return Near(first[ranks], second[ranks], distance[ranks], cut)


def _compare(prints: NDArray[np.int8], rows: NDArray[np.int64], *, near: float, most: int) -> Near:
    count = len(rows)
    chosen = prints[rows]
    lengths = np.sqrt(np.einsum("ij,ij->i", chosen, chosen, dtype=np.int32).astype(np.float64))
    units = _units(chosen, lengths)
    # |u - v|^2 = 2 * distance; as one product: [u, -|u|^2 / 2, 1] . [v, 1, -|v|^2 / 2] = -|u - v|^2 / 2
    half, ones = (units**2).sum(axis=1, keepdims=True) / 2, np.ones((count, 1), np.float32)
    left, right = np.hstack([units, -half, ones]), np.hstack([units, ones, -half]).T
    found: list[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]] = []
    total, cut = 0, False
    step = max(_ENTRIES // max(count, 1), 1)
    for start in range(0, count, step):
        block = left[start : start + step] @ right[:, start:]
        # np.nonzero of two axes took longer than all the rest
        i, j = np.divmod(np.flatnonzero(block >= -near - _ROUNDING), block.shape[1])
        keep = i < j
        i, j = i[keep] + start, j[keep] + start
        distance = _distances(prints, rows[i], rows[j], lengths[i] * lengths[j])
        near_enough = distance <= near
        found.append((rows[i[near_enough]], rows[j[near_enough]], distance[near_enough]))
        total += len(found[-1][0])
        if total >= most:
            cut = start + step < count
            break
    if not found:
        return Near(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0), False)
    first, second, distance = (np.concatenate(each) for each in zip(*found, strict=True))
    return Near(first, second, distance, cut)


def _units(prints: NDArray[np.int8], lengths: NDArray[np.float64]) -> NDArray[np.float32]:
    """Return fingerprints of length 1; many of them in the directions alone in which they differ most.

    Any orthonormal directions would find the same pairs; these leave the fewest to compare in full.
    """

    def scaled(part: slice) -> NDArray[np.float32]:
        return np.asarray(prints[part] / lengths[part, np.newaxis], np.float32)

    if len(prints) <= _EXACT:
        return scaled(slice(None))
    sample = scaled(slice(None, None, max(len(prints) // _SAMPLE, 1)))
    shares, vectors = np.linalg.eigh(sample.T @ sample)
    enough = int(np.searchsorted(np.cumsum(shares[::-1]), _SHARE * shares.sum())) + 1
    directions = np.asarray(vectors[:, -max(_COARSE, enough) :], np.float32)
    parts = [scaled(slice(start, start + _EXACT)) @ directions for start in range(0, len(prints), _EXACT)]
    return np.concatenate(parts)


def _distances(
    prints: NDArray[np.int8], first: NDArray[np.int64], second: NDArray[np.int64], lengths: NDArray[np.float64]
) -> NDArray[np.float64]:
    products = np.empty(len(first), np.int64)
    for start in range(0, len(first), _EXACT):
        pair = [prints[rows[start : start + _EXACT]].astype(np.int32) for rows in (first, second)]
        products[start : start + _EXACT] = (pair[0] * pair[1]).sum(axis=1)
    return 1 - products / lengths
