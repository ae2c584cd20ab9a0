"""Metadata of a clip's frames from DICOM headers: acquisition times, pixel size, and the values of black and white.

A clip is one file with all frames, or one file per frame. Each frame has its `scopes` (see `dicom.header.scopes_of`).
"""

from collections.abc import Sequence
from datetime import date
from fractions import Fraction
from statistics import median

import numpy as np

from cinefeed.video.dicom.header import GROUPS, Elements, Scopes, nearest_elements
from cinefeed.video.metadata import Region
from cinefeed.video.orientation import square_or
from cinefeed.video.timestamps import FrameTimes

RESCALE = [*GROUPS, *"PixelValueTransformationSequence RescaleSlope RescaleIntercept".split()]
METADATA_COLUMNS = [
    *RESCALE,
    *"""
    FrameVOILUTSequence WindowCenter WindowWidth VOILUTFunction VOILUTSequence LUTDescriptor ModalityLUTSequence
    Modality FrameTime FrameTimeVector CineRate RecommendedDisplayFrameRate ActualFrameDuration EffectiveDuration
    TriggerTime TemporalResolution AcquisitionTime ContentTime HeartRate NominalInterval CardiacNumberOfImages
    CardiacSynchronizationSequence NominalCardiacTriggerDelayTime RRIntervalTimeNominal TemporalPositionSequence
    TemporalPositionTimeOffset FrameContentSequence FrameReferenceDateTime FrameAcquisitionDateTime PixelSpacing
    ImagerPixelSpacing NominalScannedPixelSpacing PixelMeasuresSequence PixelAspectRatio BurnedInAnnotation
    SequenceOfUltrasoundRegions RegionSpatialFormat RegionDataType RegionLocationMinX0 RegionLocationMinY0
    RegionLocationMaxX1 RegionLocationMaxY1 PhysicalUnitsXDirection PhysicalUnitsYDirection PhysicalDeltaX
    PhysicalDeltaY
    """.split(),
]
_CENTIMETRES = 3
_BY_FORMAT = {2: "m-mode"}
_BY_DATA = {1: "2d", 2: "colour", 3: "pw", 4: "cw"}


def rescale_of(scopes: Scopes) -> tuple[float, float]:
    """Return slope and intercept from stored numbers to measured values: (1, 0) if there are none."""
    slope, intercept = (
        nearest_elements(scopes, "PixelValueTransformationSequence", keyword).number(keyword)
        for keyword in ("RescaleSlope", "RescaleIntercept")
    )
    return (1.0 if slope is None else slope), (intercept or 0.0)


def window_of(scopes: Scopes) -> tuple[float, float] | None:
    """Return the values that become black and white, None if the file has none.

    By the formulas of DICOM PS3.3 C.11.2.1.2 and C.11.2.1.3: LINEAR from centre - 0.5 - (width - 1) / 2 to
    centre - 0.5 + (width - 1) / 2, LINEAR_EXACT from centre - width / 2 to centre + width / 2. SIGMOID is replaced by
    the straight line through its middle, a table by a line over its input values. Of several windows the first is used.
    """
    elements = nearest_elements(scopes, "FrameVOILUTSequence", "WindowCenter")
    centre, width = elements.number("WindowCenter"), elements.number("WindowWidth")
    if centre is None or width is None or width <= 0:
        table = next((item for place in scopes if (item := place.first("VOILUTSequence"))), None)
        descriptor = table.numbers("LUTDescriptor") if table else []
        return (descriptor[1], descriptor[1] + (descriptor[0] or 65536) - 1) if len(descriptor) == 3 else None
    if elements.text("VOILUTFunction") in ("LINEAR_EXACT", "SIGMOID"):
        return centre - width / 2, centre + width / 2
    if width <= 1:
        return centre - 1, centre  # integers below the centre are black, all others white
    return centre - 0.5 - (width - 1) / 2, centre - 0.5 + (width - 1) / 2


def shared_window(windows: Sequence[tuple[float, float] | None]) -> tuple[float, float] | None:
    """Return one window for all frames, so that a clip does not flicker: the median blacks and whites."""
    present = [window for window in windows if window is not None]
    if not present:
        return None
    return median(black for black, _ in present), median(white for _, white in present)


def times_of(frames: Sequence[Scopes]) -> FrameTimes:
    """Return the time of each frame, in seconds from the first; the step is NaN if the headers have no times.

    In this order: frame times of a file, delays after the R wave and other times of each frame if they ascend, the
    mean interval between heart beats divided by the number of phases, the recommended display rates.
    """
    head, count = frames[0][-1], len(frames)
    vector, step = head.numbers("FrameTimeVector"), head.number("FrameTime")
    if len(vector) >= count > 1 and min(vector[1:count]) > 0:  # the first has no meaning
        return _regular_or_listed(np.cumsum([0.0, *vector[1:count]]) / 1000)
    if step is not None and step > 0:
        return FrameTimes(0.0, step / 1000, count)
    for sequence, keyword, seconds in (
        ("CardiacSynchronizationSequence", "NominalCardiacTriggerDelayTime", 1e-3),
        ("TemporalPositionSequence", "TemporalPositionTimeOffset", 1.0),
        ("", "TriggerTime", 1e-3),
        ("FrameContentSequence", "FrameReferenceDateTime", None),
        ("FrameContentSequence", "FrameAcquisitionDateTime", None),
        ("", "AcquisitionTime", None),
        ("", "ContentTime", None),
    ):
        sources = [nearest_elements(scopes, sequence, keyword) for scopes in frames]
        times = [clock_seconds(each.text(keyword)) if seconds is None else each.number(keyword) for each in sources]
        seconds_taken = np.array([time for time in times if time is not None]) * (seconds or 1.0)
        if len(seconds_taken) == count > 1 and (np.diff(seconds_taken) > 0).all():
            return _regular_or_listed(seconds_taken - seconds_taken[0])
    return FrameTimes(0.0, _nominal_step(head, count), count)


def _nominal_step(head: Elements, count: int) -> float:
    """Return the seconds between frames that a header gives for all of them, NaN if it gives none."""
    interval, images = head.number("NominalInterval"), head.number("CardiacNumberOfImages")
    rate = head.number("RecommendedDisplayFrameRate") or head.number("CineRate")
    steps = (
        interval / images / 1000 if interval and images == count else None,
        (head.number("TemporalResolution") or 0.0) / 1000,
        (head.number("ActualFrameDuration") or 0.0) / 1000,
        (head.number("EffectiveDuration") or 0.0) / count,
        1 / rate if rate else None,
    )
    return next((step for step in steps if step is not None and step > 0), float("nan"))


def _regular_or_listed(seconds: np.ndarray[tuple[int], np.dtype[np.float64]]) -> FrameTimes:
    steps = np.diff(seconds)
    step = float(np.median(steps))
    regular = bool(np.allclose(steps, step, rtol=1e-6, atol=0))
    return FrameTimes(0.0, step, len(seconds), None if regular else seconds)


def clock_seconds(text: str) -> float | None:
    """Return the seconds of a DICOM date and time or time of day, None if invalid; only differences are meaningful.

    >>> clock_seconds("20240131235959.5"), clock_seconds("000001"), clock_seconds("")
    (63842428799.5, 1.0, None)
    """
    whole, _, part = text.split("+")[0].split("-")[0].partition(".")
    if not (whole.isdecimal() and whole.isascii() and len(whole) in (6, 14)) or (part and not part.isdecimal()):
        return None
    clock, days = whole[-6:], 0
    if len(whole) == 14:
        try:
            days = date(int(whole[:4]), int(whole[4:6]), int(whole[6:8])).toordinal()
        except ValueError:
            return None
    seconds = int(clock[:2]) * 3600 + int(clock[2:4]) * 60 + int(clock[4:])
    return days * 86400 + seconds + float(f"0.{part or 0}")


def heart_rate_of(scopes: Scopes) -> float | None:
    """Return heart beats per minute, None if the header has none."""
    head = scopes[-1]
    beat = nearest_elements(scopes, "CardiacSynchronizationSequence", "RRIntervalTimeNominal").number(
        "RRIntervalTimeNominal"
    )
    rate, interval = head.number("HeartRate"), beat or head.number("NominalInterval")
    if rate and rate > 0:
        return rate
    return round(60000 / interval, 1) if interval and interval > 0 else None


def header_tags(scopes: Scopes) -> dict[str, str | float | None]:
    """Return further columns of a file: heart rate, and whether text is burned into the pixels."""
    tags: dict[str, str | float | None] = {}
    if beats := heart_rate_of(scopes):
        tags["heart_rate_bpm"] = beats
    if (annotation := scopes[-1].text("BurnedInAnnotation")) in ("YES", "NO"):
        tags["burned_in"] = annotation
    return tags


def spacing_of(scopes: Scopes) -> tuple[float, float] | None:
    """Return the millimetres between pixels, vertical and horizontal, None if the header has none."""
    pixel_spacing = nearest_elements(scopes, "PixelMeasuresSequence", "PixelSpacing").numbers("PixelSpacing")
    head = scopes[-1]
    for pair in (pixel_spacing, head.numbers("ImagerPixelSpacing"), head.numbers("NominalScannedPixelSpacing")):
        if len(pair) == 2 and min(pair) > 0:
            return pair[0], pair[1]
    for item in head.sequences.get("SequenceOfUltrasoundRegions", []):
        units = [item.number(f"PhysicalUnits{axis}Direction") for axis in "YX"]
        down, across = (abs(item.number(f"PhysicalDelta{axis}") or 0.0) for axis in "YX")
        if units == [_CENTIMETRES, _CENTIMETRES] and _kind_of(item) in ("2d", "colour") and down and across:
            return 10 * down, 10 * across
    return None


def aspect_of(scopes: Scopes) -> float:
    """Return the width of a pixel divided by its height, if a file without spacing states one."""
    ratio = scopes[-1].numbers("PixelAspectRatio")
    if len(ratio) != 2 or min(ratio) <= 0 or spacing_of(scopes) is not None:
        return 1.0
    return square_or(Fraction(ratio[1]) / Fraction(ratio[0]))


def regions_of(scopes: Scopes, *, rows: int, columns: int) -> tuple[Region, ...]:
    """Return the regions of an ultrasound image, clipped to the frame."""
    regions = []
    for item in scopes[-1].sequences.get("SequenceOfUltrasoundRegions", []):
        left, top = max(item.integer("RegionLocationMinX0"), 0), max(item.integer("RegionLocationMinY0"), 0)
        right = min(item.integer("RegionLocationMaxX1", -1) + 1, columns)
        bottom = min(item.integer("RegionLocationMaxY1", -1) + 1, rows)
        if left < right and top < bottom:
            regions.append(Region(left, top, right, bottom, _kind_of(item)))
    return tuple(regions)


def _kind_of(item: Elements) -> str:
    kind = _BY_FORMAT.get(item.integer("RegionSpatialFormat"))
    return kind or _BY_DATA.get(item.integer("RegionDataType"), "other")
