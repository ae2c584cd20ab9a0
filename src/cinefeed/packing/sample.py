"""Measurement of codecs on a sample of a data set: size of the whole, speed of a feed, and fidelity."""

import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args

import cv2
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from cinefeed.core.errors import CinefeedError, PackError, SettingError
from cinefeed.core.text import format_bytes
from cinefeed.data.manifest.columns import METADATA_COLUMNS, ordered
from cinefeed.data.manifest.manifest import Manifest
from cinefeed.data.manifest.quiet import decoders_quiet
from cinefeed.feed.feed import Feed
from cinefeed.feed.throughput import measure_feed
from cinefeed.packing.estimate import estimate_bytes
from cinefeed.packing.rows import RowJob, RowResult, pack_row
from cinefeed.packing.settings import Codec, PackSettings
from cinefeed.video.readers import readers_of

_ROWS, _MAX_FRAMES, _COMPARED_FRAMES, _SECONDS = 8, 96, 4, 1.0
_BLUR, _SIGMA = (11, 11), 1.5  # of SSIM, as in its paper (Wang et al., 2004)


@dataclass(frozen=True, kw_only=True)
class CodecMeasurement:
    """Size, speed and fidelity of a codec on a sample; `psnr_db` and `ssim` compare with the source at the packed size.

    `codec` is None for the source itself, whose size is that of its files. `clips_per_second` is that of one core.
    Lossless codecs have an infinite PSNR; both are NaN if the source has more than 8 bits. `error` is the reason why a
    codec cannot hold these videos.
    """

    codec: Codec | str | None
    bytes: float = float("nan")
    clips_per_second: float = float("nan")
    psnr_db: float = float("nan")
    ssim: float = float("nan")
    error: str = ""


def measure_codecs(
    manifest: Manifest,
    codecs: Sequence[Codec] = get_args(Codec),
    *,
    options: dict[str, Any],
    make_feed: Callable[[Manifest], Feed],
    tick: Callable[[int, int], object] | None = None,
) -> list[CodecMeasurement]:
    """Pack up to 8 evenly spaced rows with each codec, and return one measurement per codec, after that of the source.

    The first 96 frames of each video are packed.

    Args:
        manifest: The videos.
        codecs: The codecs to measure.
        options: Settings of PackSettings other than the codec; those that a codec does not support are left out.
        make_feed: Function that returns the feed to measure, without workers, for a manifest.
        tick: Called with the number of measured codecs, and of all.

    Raises PackError if no row of the sample can be read.
    """
    rows = _sample_rows(manifest)
    source = manifest.take(rows)
    with tempfile.TemporaryDirectory(prefix="cinefeed-pack-") as folder, decoders_quiet():
        references = _references(source, options, Path(folder) / "reference")
        if not references:
            raise PackError(f"none of {len(rows)} sampled rows can be packed; run 'cinefeed check'")
        sizes = estimate_bytes(manifest, PackSettings(codec="copy"))
        speed = _speed(make_feed(source))
        of_source = CodecMeasurement(codec=None, bytes=float(sizes.sum()), clips_per_second=speed)
        measurements = [of_source]
        for number, codec in enumerate(codecs):
            if tick is not None:
                tick(number, len(codecs))
            try:
                settings = settings_of(codec, options)
                measurements.append(
                    _measure(manifest, source, settings, Path(folder) / codec, references, make_feed, of_source)
                )
            except CinefeedError as error:
                measurements.append(CodecMeasurement(codec=codec, error=str(error)))
    return measurements


def settings_of(codec: Codec | str, options: dict[str, Any]) -> PackSettings:
    """Return the settings of a codec. Raises SettingError for `copy` if the options ask for another size or rate."""
    quality = {} if codec in ("jpeg", "h264") else {"quality": None}
    return PackSettings(codec=codec, **(options | quality))


def choose_codec(measurements: Sequence[CodecMeasurement], *, max_bytes: float) -> CodecMeasurement:
    """Return the measurement of the fastest codec whose shards take at most `max_bytes`.

    Of codecs that are nearly as fast (90 %), the one with the smallest shards is chosen. Raises SettingError if there
    is none.
    """
    fitting = [each for each in measurements if each.codec is not None and not each.error and each.bytes <= max_bytes]
    if not fitting:
        smallest = min((each.bytes for each in measurements if each.codec and not each.error), default=float("nan"))
        raise SettingError(
            f"no codec packs these videos into {format_bytes(max_bytes)}; the smallest shards take "
            f"{format_bytes(smallest)}: choose a smaller --short-side, a lower --rate or more --max-bytes"
        )
    fastest = max(each.clips_per_second for each in fitting)
    return min((each for each in fitting if each.clips_per_second >= 0.9 * fastest), key=lambda each: each.bytes)


def ssim(one: NDArray[np.uint8], other: NDArray[np.uint8]) -> float:
    """Return the mean structural similarity of two images, (height, width) or (height, width, channels).

    >>> image = np.random.default_rng(0).integers(0, 255, (32, 32), np.uint8)
    >>> ssim(image, image), ssim(image, 255 - image) < 0
    (1.0, True)
    """
    first, second = one.astype(np.float64), other.astype(np.float64)

    def blurred(image: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.asarray(cv2.GaussianBlur(image, _BLUR, _SIGMA))

    mean1, mean2 = blurred(first), blurred(second)
    variance1, variance2 = blurred(first * first) - mean1**2, blurred(second * second) - mean2**2
    covariance = blurred(first * second) - mean1 * mean2
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    similarity = (2 * mean1 * mean2 + c1) * (2 * covariance + c2)
    similarity /= (mean1**2 + mean2**2 + c1) * (variance1 + variance2 + c2)
    return float(similarity.mean())


def _sample_rows(manifest: Manifest) -> list[int]:
    count = len(manifest)
    candidates: NDArray[np.int64] = np.arange(count)
    if "num_frames" in manifest.table.schema.names:
        frames = manifest.column("num_frames").fill_null(1).to_numpy(zero_copy_only=False)
        candidates = np.flatnonzero(frames > 0)
    if not len(candidates):
        raise PackError("no row has a readable video; run 'cinefeed check'")
    places = np.linspace(0, len(candidates) - 1, min(len(candidates), _ROWS)).round().astype(int)
    return [int(row) for row in candidates[np.unique(places)]]


def _references(source: Manifest, options: dict[str, Any], folder: Path) -> dict[int, NDArray[Any]]:
    """Return some frames of each sampled row at the packed size, by its number in the sample."""
    results = _packed_rows(source, settings_of("raw", options), folder)
    manifest = _sample_manifest(source, results, folder)
    frames = {}
    for place, result in enumerate(result for result in results if result.file is not None):
        with manifest.open(place) as video:
            frames[result.row] = video.read(_compared(len(video)))
    return frames


def _measure(
    manifest: Manifest,
    source: Manifest,
    settings: PackSettings,
    folder: Path,
    references: Mapping[int, NDArray[Any]],
    make_feed: Callable[[Manifest], Feed],
    of_source: CodecMeasurement,
) -> CodecMeasurement:
    if settings.codec == "copy":  # bytes and speed of the source; one row is copied, to test whether it can be
        _packed_rows(source.take([0]), settings, folder)
        return replace(of_source, codec="copy", psnr_db=float("inf"), ssim=1.0)
    results = _packed_rows(source, settings, folder)
    sample = _sample_manifest(source, results, folder)
    size = sum(result.columns["member_bytes"] for result in results if result.file is not None)
    expected = estimate_bytes(sample, PackSettings(codec=settings.codec)).sum()
    total = float(estimate_bytes(manifest, settings).sum() * size / max(expected, 1.0))
    fidelity = (float("inf"), 1.0) if settings.is_lossless else _fidelity(sample, results, references)
    speed = _speed(make_feed(sample))
    return CodecMeasurement(
        codec=settings.codec, bytes=total, clips_per_second=speed, psnr_db=fidelity[0], ssim=fidelity[1]
    )


def _fidelity(
    sample: Manifest, results: Sequence[RowResult], references: Mapping[int, NDArray[Any]]
) -> tuple[float, float]:
    """Return PSNR in dB and SSIM of some frames; NaN if the source has more than 8 bits."""
    errors, similarities = [], []
    for place, result in enumerate(result for result in results if result.file is not None):
        reference = references.get(result.row)
        with sample.open(place) as video:
            frames = video.read(_compared(len(video)))
        if reference is None or reference.dtype != np.uint8 or reference.shape != frames.shape:
            continue
        errors.append(np.mean((frames.astype(np.float64) - reference) ** 2))
        similarities += [ssim(one, other) for one, other in zip(frames, reference, strict=True)]
    if not errors:
        return float("nan"), float("nan")
    error = float(np.mean(errors))
    return (float("inf") if error == 0 else 10 * float(np.log10(255**2 / error))), float(np.mean(similarities))


def _compared(count: int) -> list[int]:
    return [int(number) for number in np.unique(np.linspace(0, count - 1, _COMPARED_FRAMES).round())]


def _speed(feed: Feed) -> float:
    with closing(feed):
        return measure_feed(feed, seconds=_SECONDS).clips_per_second


def _sample_manifest(source: Manifest, results: Sequence[RowResult], folder: Path) -> Manifest:
    """Return a manifest of packed files that are not in a shard yet; each is read like a member of one."""
    packed = [result for result in results if result.file is not None]
    names = source.table.schema.names
    table = source.table.take([result.row for result in packed])
    table = table.drop_columns([name for name in ("part", *METADATA_COLUMNS) if name in names])
    paths = pa.array([result.file.name for result in packed if result.file is not None], pa.string())
    table = table.set_column(table.schema.get_field_index("path"), "path", paths)
    for name, kind in METADATA_COLUMNS.items():
        table = table.append_column(name, pa.array([result.columns.get(name) for result in packed], kind))
    return Manifest(ordered(table), root=folder, notes=source.notes)


def _packed_rows(source: Manifest, settings: PackSettings, folder: Path) -> list[RowResult]:
    """Pack the first frames of each row as a file. Raises SettingError if the codec cannot hold one of them."""
    folder.mkdir(parents=True)
    rows, readers, results = source.rows, tuple(readers_of(source.rows.containers())), []
    for row in range(len(source)):
        job = RowJob(
            row,
            rows.table.take([row]),
            rows.root,
            source.private,
            settings,
            folder,
            f"{row:08}",
            readers=readers,
            arrays=rows.arrays,
            max_frames=_MAX_FRAMES,
        )
        result = pack_row(job)
        if result.is_fatal:
            raise SettingError(result.error)
        results.append(result)
    return results
