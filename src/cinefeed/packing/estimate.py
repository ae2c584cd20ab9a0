"""Expected size of packed videos, from the metadata of a manifest alone, and the number of rows per shard."""

import numpy as np
from numpy.typing import NDArray

from cinefeed.data.manifest.manifest import Manifest
from cinefeed.packing.settings import PackSettings

SHARD_BYTES = 1_000_000_000
_MAX_ROWS = 100_000  # per shard, however small they are
_UNKNOWN_BYTES = 10_000_000  # of a row that was not scanned
_PIXEL_BYTES = {"ffv1": 0.8, "jpeg": 0.35, "h264": 0.12}  # typical; raw and copy are exact
_ARRAY_HEADER = 128


def estimate_bytes(manifest: Manifest, settings: PackSettings) -> NDArray[np.float64]:
    """Return the expected bytes of each packed video, float64 (rows,); nearly exact for `raw` and `copy`.

    The same for all processes and machines, since it decides how many rows a shard has.
    """
    names = manifest.table.schema.names
    if settings.codec == "copy":
        sizes = _numbers(manifest, "size_bytes") if "size_bytes" in names else np.full(len(manifest), np.nan)
        return np.nan_to_num(sizes, nan=float(_UNKNOWN_BYTES))
    if "num_frames" not in names:
        return np.full(len(manifest), float(_UNKNOWN_BYTES))
    frames, height, width, channels, bits, rate = (
        _numbers(manifest, name) for name in ("num_frames", "height", "width", "channels", "bits", "rate_hz")
    )
    if settings.rate_hz is not None:
        frames = frames * np.clip(settings.rate_hz / np.nan_to_num(rate, nan=settings.rate_hz), 0, 1)
    if settings.margin_seconds is not None and {"start_seconds", "end_seconds"} <= {*names}:
        seconds = _numbers(manifest, "end_seconds") - _numbers(manifest, "start_seconds") + 2 * settings.margin_seconds
        frames = np.fmin(frames, np.where(np.isnan(seconds * rate), np.inf, seconds * rate))
    pixels = height * width
    if settings.size is not None:
        pixels = np.full(len(manifest), float(settings.size[0] * settings.size[1]))
    elif settings.short_side is not None:
        pixels = pixels * np.minimum(settings.short_side / np.fmin(height, width), 1.0) ** 2
    if settings.channels == 1:
        channels = np.ones_like(channels)
    samples = pixels * channels
    if not settings.resizes and "pixel_format" in names:  # planes are stored, with subsampled chroma
        formats = manifest.column("pixel_format").to_pylist()
        samples = np.array([_samples(each, n) for each, n in zip(formats, samples.tolist(), strict=True)])
    raw = frames * samples * np.where(bits <= 8, 1, np.where(bits <= 16, 2, 4))
    if settings.codec == "raw":
        return np.nan_to_num(raw + _ARRAY_HEADER, nan=float(_UNKNOWN_BYTES))
    return np.nan_to_num(_PIXEL_BYTES.get(settings.codec, 1.0) * frames * pixels, nan=float(_UNKNOWN_BYTES))


def rows_per_shard(manifest: Manifest, settings: PackSettings) -> int:
    """Return the number of rows of a shard: those of the settings, or as many as are expected to take 1 GB."""
    if settings.rows_per_shard is not None:
        return settings.rows_per_shard
    mean = float(estimate_bytes(manifest, settings).mean())
    return int(np.clip(SHARD_BYTES // max(mean, 1.0), 1, min(_MAX_ROWS, len(manifest))))


def _samples(pixel_format: str | None, samples: float) -> float:
    """Return the samples of a frame as stored, from those of RGB."""
    name = pixel_format or ""
    if not name.startswith("yuv"):
        return samples
    return samples * next((share for mark, share in (("420", 0.5), ("422", 2 / 3), ("41", 0.5)) if mark in name), 1.0)


def _numbers(manifest: Manifest, name: str) -> NDArray[np.float64]:
    return np.asarray(manifest.column(name).to_numpy(zero_copy_only=False), np.float64)
