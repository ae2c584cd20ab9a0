import cv2
import numpy as np
import pytest
from made_videos import moving

from cinefeed.data.quality import near_duplicates as alike
from cinefeed.data.quality.frame_summaries import FRAMES, PRINT, fingerprint
from cinefeed.data.quality.near_duplicates import NEAR, near_pairs
from cinefeed.testing import write_video
from cinefeed.video.registry import open_video


def resized(frames, height, width):
    return np.stack([cv2.resize(frame, (width, height), interpolation=cv2.INTER_AREA) for frame in frames])


def encoded(frames, path, **options):
    write_video(path, list(frames), **options)
    with open_video(path, channels=1) as source:
        return source.read(list(range(len(frames))))[..., 0]


COPIES = {
    "h264": lambda x, folder: encoded(x, folder / "a.mp4", options={"crf": "32"}),
    "mpeg4": lambda x, folder: encoded(x, folder / "a.avi", codec="mpeg4", options={"qscale": "10"}),
    "halved": lambda x, folder: encoded(resized(x, 32, 40), folder / "a.mp4"),
    "stretched": lambda x, folder: resized(x, 90, 71),
    "cropped": lambda x, folder: x[:, 1:-1, 1:-1],
    "brighter": lambda x, folder: np.clip(x * 1.1 + 8, 0, 255).astype(np.uint8),
    "12 bits": lambda x, folder: x.astype(np.uint16) * 16,
    "floats": lambda x, folder: x.astype(np.float32) / 255,
}


@pytest.mark.parametrize("name", COPIES)
def test_a_copy_is_near_and_other_videos_are_not(name, tmp_path):
    others = [moving(number, frames=FRAMES) for number in range(12)]
    prints = [fingerprint(each) for each in others] + [fingerprint(COPIES[name](others[4], tmp_path))]
    pairs = near_pairs(np.stack(prints))
    assert list(zip(pairs.first.tolist(), pairs.second.tolist(), strict=True)) == [(4, 12)]
    assert pairs.distance[0] < 0.75 * NEAR  # not by a hair


@pytest.mark.parametrize("level", [0, 16, 255])
def test_constant_frames_have_no_fingerprint(level):
    for dtype in (np.uint8, np.uint16, np.float32):
        assert not fingerprint(np.full((FRAMES, 50, 60), level, dtype)).any()


def test_black_video_with_the_noise_of_a_codec_is_like_none():
    rng = np.random.default_rng(0)
    black = np.stack([fingerprint(rng.integers(16, 19, (FRAMES, 50, 60), np.uint8)) for _ in range(3)])
    assert len(near_pairs(black).first) == 0


def made_prints(count, seed=0):
    """Fingerprints of which each tenth is near another."""
    rng = np.random.default_rng(seed)
    base = rng.normal(0, 1, (8, PRINT))
    prints = rng.normal(0, 1, (count, PRINT)) + rng.normal(0, 1, (count, 8)) @ base
    copied = np.arange(0, count, 10)
    prints[copied] = prints[(copied + 3) % count] + rng.normal(0, 0.8, (len(copied), PRINT))
    return np.rint(prints / np.abs(prints).max(axis=1, keepdims=True) * 127).astype(np.int8)


def by_hand(prints, threshold):
    units = prints / np.linalg.norm(prints, axis=1, keepdims=True)
    first, second = np.triu_indices(len(prints), 1)
    distance = 1 - (units @ units.T)[first, second]
    return {(int(i), int(j)) for i, j, d in zip(first, second, distance, strict=True) if d <= threshold}


@pytest.mark.parametrize("exact", [4096, 50])
def test_no_pair_is_missed_and_none_is_made_up(exact, monkeypatch):
    monkeypatch.setattr(alike, "_EXACT", exact)
    monkeypatch.setattr(alike, "_ENTRIES", 4000)  # several blocks
    prints = made_prints(300)
    pairs = near_pairs(prints)
    pair_set = set(zip(pairs.first.tolist(), pairs.second.tolist(), strict=True))
    assert pair_set == by_hand(prints, NEAR)
    assert len(pair_set) > 20
    assert (np.diff(pairs.distance) >= 0).all()


def test_equal_fingerprints_are_paired_with_their_first():
    prints = made_prints(20)
    prints[[3, 9, 17]] = prints[5]
    pairs = near_pairs(prints, threshold=0.01)
    assert list(zip(pairs.first.tolist(), pairs.second.tolist(), strict=True)) == [(3, 5), (3, 9), (3, 17)]
    assert pairs.distance.tolist() == [0, 0, 0]


def test_a_search_without_end_is_cut(monkeypatch):
    monkeypatch.setattr(alike, "_ENTRIES", 100)
    prints = made_prints(60)
    pairs = near_pairs(prints, threshold=2.0, max_pairs=200)
    assert pairs.truncated
    assert 200 <= len(pairs.first) < 60 * 59 / 2
    assert not near_pairs(prints).truncated


def test_rows_without_pictures_are_like_none():
    pairs = near_pairs(np.zeros((4, PRINT), np.int8))
    assert len(pairs.first) == 0
