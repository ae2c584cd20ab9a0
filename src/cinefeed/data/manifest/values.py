"""Pixel values of a manifest's videos: rows that need a window, a suitable window, and rows that are not finite."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from cinefeed.core.errors import SettingError, SourceError
from cinefeed.data.manifest.manifest import Manifest
from cinefeed.video.clips import Frame
from cinefeed.video.color import Colour, lacks_window, window_missing
from cinefeed.video.limits import DEFAULT_LIMITS
from cinefeed.video.metadata import PixelValues, VideoMetadata
from cinefeed.video.value_range import has_open_scale, measured, suggest_window

_MAX_MEASURED = 8  # rows that are opened if a manifest has no measured values
_MAX_NAMES = 3
# Columns that decide whether a window is needed, besides the file's own window.
_KIND = ("container", "pixel_format", "channels", "bits", "window_assumed", "member_traits")


class NotFinite(NamedTuple):
    """Rows with NaN or infinite pixels in the frames that the scan measured, and the number of these pixels."""

    rows: NDArray[np.int64]
    nan: NDArray[np.int64]
    inf: NDArray[np.int64]

    def remarks(self) -> list[str]:
        """Return a text for each row, such as "384 pixels are NaN"."""
        pairs = zip(self.nan.tolist(), self.inf.tolist(), strict=True)
        return [
            " and ".join(
                f"{count:,} {'pixel is' if count == 1 else 'pixels are'} {what}"
                for count, what in ((nan, "NaN"), (inf, "infinite"))
                if count
            )
            for nan, inf in pairs
        ]


def rows_without_window(manifest: Manifest, *, dtype: str, view: str = "") -> NDArray[np.int64]:
    """Return the rows that need a window for conversion to `dtype`, and have none in their files.

    Rows that were not probed are not included.
    """
    columns = _columns(manifest, [*_KIND, "window_black"], view)
    if "bits" not in columns or dtype == "float32":
        return np.zeros(0, np.int64)
    bits = columns["bits"].fill_null(8).to_numpy(zero_copy_only=False)
    rows: NDArray[np.int64] = np.flatnonzero(bits != 8)
    if len(rows) == 0:
        return rows
    kinds = np.zeros(len(rows), np.int64)
    for name, column in columns.items():
        kind = column.is_null() if name == "window_black" else column
        codes = kind.dictionary_encode(null_encoding="encode").indices.to_numpy(zero_copy_only=False)[rows]
        kinds = np.unique(kinds * (int(codes.max()) + 1) + codes, return_inverse=True)[1]
    firsts = np.unique(kinds, return_index=True)[1]
    metadata = (manifest.rows.metadata(int(row), view=view) for row in rows[firsts])
    is_lacking = np.array([each is not None and lacks_window(_colour(each), dtype) for each in metadata])
    lacking_rows: NDArray[np.int64] = rows[is_lacking[kinds]]
    return lacking_rows


def window_for(manifest: Manifest, rows: NDArray[np.int64], *, view: str = "") -> tuple[float, float] | None:
    """Return a window (low, high) that clips at most 1 % of the pixels of each of these rows, or None.

    It is computed from the percentiles of the scan; without them, as for arrays in memory, some rows are opened.
    """
    ends = _columns(manifest, ["value_low", "value_high"], view)
    ranges: list[tuple[float, float]] = []
    if len(ends) == 2:
        low, high = (ends[name].to_numpy(zero_copy_only=False)[rows] for name in ("value_low", "value_high"))
        ranges = [(float(low[i]), float(high[i])) for i in np.flatnonzero(~np.isnan(low) & ~np.isnan(high))]
    if not ranges and len(rows):
        some = np.unique(np.linspace(0, len(rows) - 1, min(len(rows), _MAX_MEASURED)).round().astype(np.int64))
        values = (_measured(manifest, int(rows[index]), view) for index in some.tolist())
        ranges = [(each.low, each.high) for each in values if each is not None]
    return suggest_window(ranges)


def rows_within(manifest: Manifest, window: tuple[float, float]) -> set[int]:
    """Return the rows of which a window clips at most 1 % of pixels, by the percentiles of the scan."""
    ends = _columns(manifest, ["value_low", "value_high"], "")
    if len(ends) < 2:
        return set()
    low, high = (column.to_numpy(zero_copy_only=False) for column in ends.values())
    return set(np.flatnonzero((low >= window[0]) & (high <= window[1])).tolist())


def rows_not_finite(manifest: Manifest, *, view: str = "") -> NotFinite:
    """Return the rows with NaN or infinite pixels."""
    columns = _columns(manifest, ["nan_count", "inf_count"], view)
    if len(columns) < 2:
        return NotFinite(*(np.zeros(0, np.int64) for _ in range(3)))
    nan, inf = (columns[name].fill_null(0).to_numpy(zero_copy_only=False) for name in ("nan_count", "inf_count"))
    rows = np.flatnonzero(nan + inf)
    return NotFinite(rows, nan[rows], inf[rows])


def described_values(manifest: Manifest, row: int, *, view: str = "") -> str:
    """Return the dtype of a row's pixels, and their range if it was measured: "uint16, 0 to 1016"."""
    metadata = manifest.rows.metadata(row, view=view)
    ends = _columns(manifest, ["value_min", "value_max"], view)
    least, most = (column[row].as_py() for column in ends.values()) if len(ends) == 2 else (None, None)
    kind = metadata.pixel_format if metadata is not None else ""
    return f"{kind}, {least:g} to {most:g}" if least is not None and most is not None else kind


def check_values(manifest: Manifest, *, frame: Frame, views: Sequence[str], replaces: bool) -> None:
    """Check, before a file is opened, that the pixel values of all rows can be fed.

    Raises SettingError, with a suggested window, if values need a window and there is none; SourceError if pixels are
    NaN or infinite, unless the feed `replaces` rows that cannot be fed.
    """
    for view in views or ("",):
        rows = rows_without_window(manifest, dtype=frame.dtype, view=view)
        if frame.window is None and len(rows):
            names = [
                f"row {row}, {manifest.rows.display_name(row, view=view)} "
                f"({described_values(manifest, row, view=view)})"
                for row in map(int, rows[:_MAX_NAMES])
            ]
            problem = (
                f"{len(rows)} of {len(manifest)} rows hold floats, signed integers or more than 8 bits "
                f"({'; '.join(names)}{' ...' * (len(rows) > _MAX_NAMES)})"
            )
            raise window_missing(frame.dtype, problem, window_for(manifest, rows, view=view))
        _check_scales(manifest, frame=frame, view=view)
        not_finite = rows_not_finite(manifest, view=view)
        if len(not_finite.rows) and not replaces:
            names = [
                f"row {row}, {manifest.rows.display_name(row, view=view)}: {remark}"
                for row, remark in list(zip(not_finite.rows.tolist(), not_finite.remarks(), strict=True))[:_MAX_NAMES]
            ]
            text = f"{'; '.join(names)}{' ...' * (len(not_finite.rows) > _MAX_NAMES)}"
            raise SourceError(
                f"{len(not_finite.rows)} of {len(manifest)} rows hold pixels that are NaN or infinite, by the frames "
                f"that the scan measured ({text}); a network cannot be trained on them: correct the files and scan "
                "again, leave the rows out with where('nan_count', [0]) and where('inf_count', [0]), or feed with "
                "on_error='replace'"
            )


def _check_scales(manifest: Manifest, *, frame: Frame, view: str) -> None:
    """Raise SettingError if DICOM files without a window would be scaled by different ranges of bits."""
    columns = _columns(manifest, [*_KIND, "window_black", "window_white"], view)
    if frame.window is not None or "bits" not in columns:
        return
    open_rows = (columns["container"].to_numpy(zero_copy_only=False) == "dicom") & (
        columns["bits"].fill_null(8).to_numpy(zero_copy_only=False) != 8
    )
    rows = np.flatnonzero(open_rows)
    kinds = zip(*(column.take(pa.array(rows)).to_pylist() for column in columns.values()), strict=True)
    firsts = dict(zip(reversed([*kinds]), reversed(rows.tolist()), strict=True))
    scales: dict[tuple[float, float], int] = {}  # first row by black and white
    for row in sorted(firsts.values()):
        metadata = manifest.rows.metadata(row, view=view)
        if metadata is not None and has_open_scale(metadata) and (metadata.window is None or metadata.window_assumed):
            scales.setdefault(metadata.window or (0.0, 2.0**metadata.bits - 1), row)
    if len(scales) > 1:
        names = "; ".join(
            f"{low:g} to {high:g} in row {row}, {manifest.rows.display_name(row, view=view)}"
            for (low, high), row in list(scales.items())[:_MAX_NAMES]
        )
        window = window_for(manifest, rows, view=view)
        text = "LOW, HIGH" if window is None else f"{window[0]:.10g}, {window[1]:.10g}"
        raise SettingError(
            f"frames have dtype {frame.dtype}, and DICOM files without a window are scaled by the range of their "
            f"bits; there are {len(scales)} ranges here ({names}), so equal pixel values would become different ones. "
            f"Give Frame(window=({text})), in TOML [frame] window = [{text}]"
        )


def _colour(metadata: VideoMetadata) -> Colour:
    return Colour(
        model="grey",
        bits=metadata.bits,
        window=metadata.window,
        window_assumed=metadata.window_assumed,
        open_scale=has_open_scale(metadata),
    )


def _measured(manifest: Manifest, row: int, view: str) -> PixelValues | None:
    try:
        with manifest.rows.open(row, view=view) as source:
            return measured(source, deadline=DEFAULT_LIMITS.deadline(manifest.rows.path_of(row, view=view))).values
    except (SourceError, SettingError, OSError):
        return None  # the window is only a suggestion; feeding the row raises the error


def _columns(manifest: Manifest, names: Sequence[str], view: str) -> dict[str, Any]:
    """Return the columns that are present, as single arrays, by their names without the view."""
    present = set(manifest.table.schema.names)
    column_names = {name: f"{name}:{view}" if view else name for name in names}
    return {name: manifest.column(each) for name, each in column_names.items() if each in present}
