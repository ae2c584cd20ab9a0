"""Cutting one region out of every frame."""

import numpy as np
import pytest
from made_dicom import numbered, write_dicom

import cinefeed as cf
from cinefeed.core.errors import SourceError
from cinefeed.video.color import Colour
from cinefeed.video.metadata import Region
from cinefeed.video.planes import Planes, planes_to_array
from cinefeed.video.regions import cropped, find_region

REGIONS = (Region(0, 0, 80, 60, "2d"), Region(10, 5, 40, 30, "colour"), Region(0, 60, 80, 90, "pw"))


@pytest.mark.parametrize(("region", "number"), [("2d", 0), ("colour", 1), ("pw", 2), (0, 0), (2, 2)])
def test_a_region_is_selected_by_kind_or_number(region, number):
    assert find_region(REGIONS, region) == REGIONS[number]


def test_the_first_of_a_kind_is_returned():
    assert find_region([*REGIONS, Region(0, 0, 1, 1, "pw")], "pw") == REGIONS[2]


@pytest.mark.parametrize(("regions", "region"), [(REGIONS, "m-mode"), (REGIONS, 3)])
def test_the_error_of_a_missing_region_lists_the_regions(regions, region):
    with pytest.raises(SourceError, match="its regions are 0: 2d, 1: colour, 2: pw"):
        find_region(regions, region)
    with pytest.raises(SourceError, match="it has none"):
        find_region((), region)


def test_grey_and_rgb_are_cut_where_the_region_says():
    for tail in ((), (3,)):
        frames = np.random.default_rng(0).integers(0, 256, (3, 90, 81, *tail), np.uint8)
        planes = Planes([(frame,) for frame in frames], Colour(model="rgb" if tail else "grey"))
        cut = cropped(planes, REGIONS[1])
        np.testing.assert_array_equal(np.stack([parts[0] for parts in cut.frames]), frames[:, 5:30, 10:40])
        assert np.shares_memory(cut.frames[0][0], frames)
        assert cut.colour == planes.colour


@pytest.mark.parametrize(("down", "across"), [(1, 1), (2, 2), (1, 2), (1, 4), (4, 1)])
@pytest.mark.parametrize("size", [(90, 80), (91, 81)])
def test_chroma_stays_with_its_luma(down, across, size):
    height, width = size
    rows, columns = -(-height // down), -(-width // across)
    luma = np.zeros(size, np.uint8)
    chroma = np.arange(rows)[:, None] * 2 + np.arange(columns)  # says where it comes from
    planes = Planes([(luma, chroma.astype(np.uint8), chroma.astype(np.uint8))], Colour(model="yuv"))
    region = Region(5, 7, 33, width + 99, "2d")._replace(bottom=height + 99)
    (cut,) = cropped(planes, region).frames
    top, left = 7 // down * down, 5 // across * across
    assert cut[0].shape == (height - top, -(-33 // across) * across - left)
    assert cut[1][0, 0] == 2 * (top // down) + left // across
    pixels = planes_to_array(cropped(planes, region), channels=3, height=cut[0].shape[0], width=cut[0].shape[1])
    assert pixels.shape[1:3] == cut[0].shape


@pytest.mark.parametrize("colour", [Colour(model="grey", rotation=90), Colour(model="grey", aspect=2.0)])
def test_frames_that_are_turned_or_stretched_are_refused(colour):
    with pytest.raises(SourceError, match="rotated, mirrored or stretched"):
        cropped(Planes([(np.zeros((9, 9), np.uint8),)], colour), REGIONS[0])


def test_a_region_outside_the_frame_is_refused():
    planes = Planes([(np.zeros((50, 50), np.uint8),)], Colour(model="grey"))
    with pytest.raises(SourceError, match="outside the frame of 50 x 50"):
        cropped(planes, REGIONS[2])
    assert cropped(Planes([], Colour(model="grey")), REGIONS[2]).frames == []


def test_a_feed_shows_the_region_alone(tmp_path):
    frames = numbered(6, height=20, width=30, dtype="uint8")
    frames[:, 2:10, 4:12] += 100
    region = dict(zip(("MinX0", "MinY0", "MaxX1", "MaxY1"), (4, 2, 11, 9), strict=True))
    regions = {f"RegionLocation{name}": value for name, value in region.items()}
    regions |= {"RegionSpatialFormat": 1, "RegionDataType": 1}
    write_dicom(tmp_path / "a.dcm", frames, Modality="US", SequenceOfUltrasoundRegions=regions)
    manifest = cf.Manifest.scan(tmp_path, progress=False)

    def clips(region):
        frame = cf.Frame(height=8, width=8, channels=1, region=region)
        feed = cf.Feed(manifest, target=None, clip=cf.Clip(frames=6, position="start"), frame=frame, workers=0)
        return feed.batch(0).clips

    for region in ("2d", 0):
        assert clips(region)[0, :, :, :, 0].min(axis=(1, 2)).tolist() == [100 + i for i in range(6)]
    assert clips(None).min() == 0
    with pytest.raises(SourceError, match=r"row 0, a\.dcm: Frame\(region='pw'\) was asked for, its regions are 0: 2d"):
        clips("pw")
