"""Folders of images, and TIFF files of several pages."""

import struct
import tracemalloc
import zlib

import cv2
import numpy as np
import pytest

from cinefeed.core.errors import DecodeError, SourceError
from cinefeed.testing import check_source, numbered_frames, read_number, stored_metadata
from cinefeed.video.images.groups import group_images, missing_numbers
from cinefeed.video.images.source import ImagesSource, TiffSource, probe_images, probe_tiff
from cinefeed.video.kinds import IMAGE_SUFFIXES
from cinefeed.video.read_options import ReadOptions
from cinefeed.video.source import DiscoveredSample


def conforms(kind, path, metadata):
    check_source(kind(path, metadata=metadata), reopen=lambda: kind(path, metadata=stored_metadata(metadata)))


def write(path, image):
    """Write an image, RGB where it has three channels."""
    ok, data = cv2.imencode(path.suffix, image[..., ::-1] if image.ndim == 3 else image)
    assert ok
    path.write_bytes(data.tobytes())


def folder(path, frames, *, suffix=".png", first=1):
    path.mkdir(exist_ok=True)
    for number, frame in enumerate(frames, first):
        write(path / f"frame{number}{suffix}", frame)
    return path


def noise(*shape, dtype="uint8"):
    top = 256 if dtype == "uint8" else 65536
    return np.random.default_rng(0).integers(0, top, shape).astype(dtype)


@pytest.mark.parametrize(
    ("suffix", "dtype", "tail"),
    [
        (".png", "uint8", ()),
        (".png", "uint8", (3,)),
        (".png", "uint16", ()),
        (".png", "uint16", (3,)),
        (".bmp", "uint8", (3,)),
        (".pgm", "uint16", ()),
        (".ppm", "uint8", (3,)),
        (".tif", "uint16", (3,)),
        (".tiff", "float32", ()),
        (".tif", "float32", (3,)),
        (".jp2", "uint16", ()),
        (".webp", "uint8", (3,)),
    ],
)
def test_values_stay_as_they_are(tmp_path, suffix, dtype, tail):
    frames = noise(12, 32, 48, *tail, dtype=dtype)
    path = folder(tmp_path / "cine", frames, suffix=suffix)
    metadata = probe_images(path)
    assert (metadata.times.count, metadata.height, metadata.width, metadata.channels) == (12, 32, 48, 3 if tail else 1)
    assert metadata.files == tuple(f"frame{number}{suffix}" for number in range(1, 13))
    assert (metadata.container, metadata.codec, metadata.error) == ("images", suffix[1:], None)
    with ImagesSource(path, metadata=metadata) as source:
        read = source.read([11, 0, 11])
    assert read.dtype == dtype
    if suffix in (".jp2", ".webp"):  # lossy as OpenCV writes them
        assert np.corrcoef(read.ravel(), frames[[11, 0, 11]].ravel())[0, 1] > 0.5
    else:
        np.testing.assert_array_equal(read, frames[[11, 0, 11]].reshape(3, 32, 48, -1))
    conforms(ImagesSource, path, metadata)


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp"])
def test_frame_10_comes_after_frame_9(tmp_path, suffix):
    path = folder(tmp_path / "cine", numbered_frames(12), suffix=suffix, first=0)
    with ImagesSource(path, metadata=probe_images(path)) as source:
        assert [read_number(frame) for frame in source.read(range(12))] == list(range(12))


def test_the_files_of_a_scan_keep_their_order(tmp_path):
    path = folder(tmp_path / "cine", numbered_frames(4), first=0)
    metadata = probe_images(path, files=("frame3.png", "frame1.png"))
    with ImagesSource(path, metadata=metadata) as source:
        assert [read_number(frame) for frame in source.read([0, 1])] == [3, 1]


def png(colour_type, depth, rows, *extra):
    """Write a PNG by hand: OpenCV writes neither palettes nor grey with alpha."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    samples = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[colour_type]
    width = len(rows[0]) * 8 // depth // samples
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, len(rows), depth, colour_type, 0, 0, 0))
    body = chunk(b"IDAT", zlib.compress(b"".join(b"\0" + row for row in rows)))
    return b"\x89PNG\r\n\x1a\n" + head + b"".join(chunk(*each) for each in extra) + body + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        (png(4, 8, [bytes([10, 255, 20, 0])]), [[[10], [20]]]),
        (png(4, 16, [struct.pack(">4H", 1000, 65535, 2000, 0)]), [[[1000], [2000]]]),
        (png(6, 8, [bytes([10, 20, 30, 0, 1, 2, 3, 255])]), [[[10, 20, 30], [1, 2, 3]]]),
        (png(3, 8, [bytes([1, 0])], (b"PLTE", bytes([9, 8, 7, 60, 50, 40]))), [[[60, 50, 40], [9, 8, 7]]]),
        (png(0, 1, [bytes([0b10100000])] * 2), [[[255], [0], [255], [0], [0], [0], [0], [0]]] * 2),
    ],
    ids=["grey and alpha", "grey and alpha, 16 bits", "RGB and alpha", "palette", "1 bit"],
)
def test_alpha_is_dropped_and_palettes_are_looked_up(tmp_path, image, expected):
    for number in range(3):
        (tmp_path / f"{number}.png").write_bytes(image)
    metadata = probe_images(tmp_path)
    with ImagesSource(tmp_path, metadata=metadata) as source:
        assert source.read([1])[0].tolist() == expected
    conforms(ImagesSource, tmp_path, metadata)


def test_exif_turns_an_image_upright(tmp_path):
    image = np.zeros((20, 40), np.uint8)
    image[:, :10] = 255
    data = cv2.imencode(".jpg", image)[1].tobytes()
    turn_right = b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0"
    turned = data[:2] + b"\xff\xe1" + struct.pack(">H", len(turn_right) + 2) + turn_right + data[2:]
    for number in range(2):
        (tmp_path / f"{number}.jpg").write_bytes(turned)
    metadata = probe_images(tmp_path)
    assert (metadata.height, metadata.width, metadata.rotation) == (40, 20, 0)
    with ImagesSource(tmp_path, metadata=metadata) as source:
        frame = source.read([1])[0, ..., 0]
    assert frame[:8].min() > 200
    assert frame[12:].max() < 50


def test_an_image_of_another_size_breaks_the_video(tmp_path):
    path = folder(tmp_path / "cine", noise(30, 18, 26))
    write(path / "frame8.png", noise(20, 26))
    metadata = probe_images(path)
    assert metadata.times.count == 7
    assert (
        metadata.error
        == "breaks after 7 of 30 frames: the next is 26 x 20, grey uint8; the first is 26 x 18, grey uint8"
    )
    conforms(ImagesSource, path, metadata)
    trusted = probe_images(path, verify="packets")
    assert (trusted.times.count, trusted.error) == (30, None)
    with (
        ImagesSource(path, metadata=trusted) as source,
        pytest.raises(DecodeError, match=r"frame8\.png: frame 7 is 26 x 20"),
    ):
        source.read([6, 7])


@pytest.mark.parametrize("other", [noise(18, 26, 3), noise(18, 26, dtype="uint16")], ids=["RGB", "16 bits"])
def test_an_image_of_another_kind_breaks_the_video(tmp_path, other):
    path = folder(tmp_path / "cine", noise(4, 18, 26))
    write(path / "frame3.png", other)
    assert probe_images(path).error.startswith("breaks after 2 of 4 frames: the next is 26 x 18, ")


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".bmp", ".webp", ".jp2", ".pgm", ".tif"])
@pytest.mark.parametrize("share", [0, 0.5, 0.9])
def test_an_image_that_is_cut_off_breaks_the_video(tmp_path, suffix, share):
    path = folder(tmp_path / "cine", noise(4, 32, 48), suffix=suffix)
    broken = path / f"frame3{suffix}"
    whole = broken.read_bytes()
    broken.write_bytes(whole[: int(len(whole) * share)])
    metadata = probe_images(path)
    assert metadata.error.startswith("breaks after 2 of 4 frames: the next cannot be decoded")
    conforms(ImagesSource, path, metadata)


def test_an_image_that_is_gone_breaks_the_video(tmp_path):
    path = folder(tmp_path / "cine", noise(4, 18, 26))
    files = tuple(f"frame{number}.png" for number in range(1, 5))
    (path / "frame4.png").unlink()
    error = probe_images(path, files=files).error
    assert error == "breaks after 3 of 4 frames: the next cannot be read (No such file or directory)"


def test_a_folder_without_a_first_frame_is_not_a_video(tmp_path):
    path = folder(tmp_path / "cine", noise(4, 18, 26))
    (path / "frame1.png").write_bytes(b"no image")
    with pytest.raises(SourceError, match=r"cine: its first frame, frame1\.png, cannot be decoded"):
        probe_images(path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(SourceError, match="empty: holds 0 images"):
        probe_images(tmp_path / "empty")
    with pytest.raises(SourceError, match="cannot be read as a folder of images"):
        probe_images(tmp_path / "missing")


def test_gaps_in_the_numbers_are_reported(tmp_path):
    path = folder(tmp_path / "cine", noise(6, 18, 26))
    assert probe_images(path).tags == {}
    (path / "frame3.png").unlink()
    assert probe_images(path).tags == {"missing_frames": 1}


@pytest.mark.parametrize(
    ("names", "missing"),
    [
        (["a1", "a2", "a5"], 2),
        (["a0", "a10", "a20"], 0),
        (["s2_1", "s2_2"], 0),
        (["1617389823", "1617389900", "1617390001"], 0),
        (["a1", "b1", "a2", "b2"], 0),
        (["x", "y"], 0),
        (["7"], 0),
    ],
)
def test_missing_numbers(names, missing):
    assert missing_numbers([f"{name}.png" for name in names]) == missing


@pytest.mark.parametrize(
    ("names", "folders", "unread"),
    [
        (["a/1.png", "a/2.png", "b/1.jpg"], {"a": ("1.png", "2.png")}, ["b/1.jpg"]),
        (["img10.png", "img9.png", "IMG1.png"], {".": ("IMG1.png", "img9.png", "img10.png")}, []),
        (["a/1.png", "a/2.png", "a/cine.mp4"], {}, ["a/1.png", "a/2.png"]),
        (["a/1.png", "a/2.png", "cine.mp4", "a/b/cine.npy"], {"a": ("1.png", "2.png")}, []),
        (["a/1.png", "a/2.jpg"], {}, ["a/1.png", "a/2.jpg"]),
        (["a/1.JPG", "a/2.jpeg"], {"a": ("1.JPG", "2.jpeg")}, []),
        (["a/1.tif", "a/2.tiff"], {"a": ("1.tif", "2.tiff")}, []),
        (["z/1.png", "z/2.png", "a/b/1.png", "a/b/02.png"], {"a/b": ("1.png", "02.png"), "z": ("1.png", "2.png")}, []),
        (["a1.png", "b2.png", "c3.png"], {".": ("a1.png", "b2.png", "c3.png")}, []),
        ([], {}, []),
    ],
)
def test_groups(names, folders, unread):
    groups = group_images(names)
    assert groups.samples == [DiscoveredSample(folder, files=files) for folder, files in folders.items()]
    assert sorted(name for _, name in groups.unread) == sorted(unread)
    assert not groups.ambiguous


@pytest.mark.parametrize(
    ("names", "choice", "frames"),
    [
        (["1.jpg", "2.jpg", "1.png", "2.png"], "*.jpg", ("1.jpg", "2.jpg")),
        (["1.jpg", "2.jpg", "3.jpg", "thumb.png"], "*.JPG", ("1.jpg", "2.jpg", "3.jpg")),
        (["f1.png", "f2.png", "f1_mask.png", "f2_mask.png"], "f*[0-9].png", ("f1.png", "f2.png")),
        (["left_01.png", "left_02.png", "right_01.png", "right_02.png"], "left*", ("left_01.png", "left_02.png")),
    ],
)
def test_frames_beside_masks_have_to_be_chosen(tmp_path, names, choice, frames):
    groups = group_images([f"a/{name}" for name in names])
    assert not groups.samples and choice.lower().startswith(tuple(key[:4] for key in groups.ambiguous["a"]))
    selection = group_images([f"a/{name}" for name in names], frames=choice)
    assert selection.samples == [DiscoveredSample("a", files=frames)] and not selection.ambiguous
    assert len(selection.unread) == len(names) - len(frames)
    for number, name in enumerate(names):
        write(tmp_path / name, np.full((16, 16), number, np.uint8))
    with pytest.raises(SourceError, match="holds images of several kinds; select those that are frames: ReadOptions"):
        probe_images(tmp_path)
    assert probe_images(tmp_path, reading=ReadOptions(frames=choice)).files == frames


def test_frames_can_be_chosen_by_their_folder():
    names = [f"{patient}/{kind}/{i}.png" for patient in "ab" for kind in ("images", "masks") for i in range(3)]
    assert [sample.path for sample in group_images(names, frames="*/images/*").samples] == ["a/images", "b/images"]


def animated(path, frames=3):
    if not hasattr(cv2, "imwriteanimation"):
        pytest.skip("this OpenCV writes no animations")
    animation = cv2.Animation()
    animation.frames = [np.full((20, 30, 3), 60 * i, np.uint8) for i in range(frames)]
    animation.durations = [40] * frames
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwriteanimation(str(path), animation)
    return path


@pytest.mark.parametrize("suffix", [".webp", ".png"])
def test_animated_images_are_videos_by_themselves(tmp_path, suffix):
    names = [f"moving/{i}{suffix}" for i in range(2)] + [f"alone/0{suffix}"]
    for name in names:
        animated(tmp_path / name)
    folder(tmp_path / "still", noise(3, 20, 30), suffix=suffix)
    names += [f"still/frame{i}{suffix}" for i in (1, 2, 3)] + ["moving/thumb.jpg"]
    groups = group_images(names, root=tmp_path)
    assert sorted(sample.path for sample in groups.samples) == [
        f"alone/0{suffix}",
        *[f"moving/{i}{suffix}" for i in (0, 1)],
        "still",
    ]
    assert groups.unread == [("image beside a video (.jpg)", "moving/thumb.jpg")]
    animated(tmp_path / "still" / f"frame2{suffix}")
    assert "frame 1" not in (error := probe_images(tmp_path / "still").error) and "is animated" in error


def test_a_map_is_a_frame_only_if_selected(tmp_path):
    entries = [(256, 3, 1, 4), (257, 3, 1, 4), (34735, 3, 1, 1)]
    body = struct.pack("<H", len(entries)) + b"".join(struct.pack("<HHII", *entry) for entry in entries) + bytes(4)
    for name in ("1.tif", "2.tif"):
        (tmp_path / name).write_bytes(b"II*\0" + struct.pack("<I", 8) + body)
    groups = group_images(["1.tif", "2.tif"], root=tmp_path)
    assert not groups.samples and [name for _, name in groups.unread] == ["1.tif", "2.tif"]
    assert "GeoTIFF" in groups.unread[0][0]
    assert group_images(["1.tif", "2.tif"], root=tmp_path, frames="*.tif").samples[0].files == ("1.tif", "2.tif")


def test_tiff_files_of_several_pages_are_videos_by_themselves(tmp_path):
    for name, pages in (("stacks/1.tif", 3), ("stacks/2.tif", 3), ("frames/1.tif", 1), ("frames/2.tif", 1)):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        assert cv2.imwritemulti(str(tmp_path / name), list(noise(pages, 18, 26)))
    names = ["stacks/1.tif", "stacks/2.tif", "frames/1.tif", "frames/2.tif"]
    assert [sample.path for sample in group_images(names, root=tmp_path).samples] == ["frames", *names[:2]]
    assert [sample.path for sample in group_images(names).samples] == ["frames", "stacks"]
    (tmp_path / "frames" / "1.tif").write_bytes(b"no TIFF")
    assert [sample.path for sample in group_images(names, root=tmp_path).samples] == ["frames", *names[:2]]


def test_suffixes():
    assert {".png", ".jpg", ".tif", ".tiff"} <= IMAGE_SUFFIXES
    assert ".gif" not in IMAGE_SUFFIXES  # a video by itself


def test_only_requested_images_are_decoded(tmp_path):
    path = folder(tmp_path / "cine", noise(6, 18, 26))
    metadata = probe_images(path)
    for number in (1, 2, 4, 6):
        (path / f"frame{number}.png").unlink()
    with ImagesSource(path, metadata=metadata) as source:
        assert source.read([4, 2]).shape == (2, 18, 26, 1)


@pytest.mark.parametrize("kind", ["images", "tiff"])
def test_windows(tmp_path, kind):
    frames = np.zeros((40, 10, 10), np.uint16) + 100 * np.arange(100, dtype=np.uint16).reshape(10, 10)
    probe, source = (probe_images, ImagesSource) if kind == "images" else (probe_tiff, TiffSource)
    path = folder(tmp_path / "cine", frames) if kind == "images" else stack(tmp_path / "cine.tif", frames)
    metadata = probe(path, reading=ReadOptions(window="percentiles"))
    assert metadata.window == pytest.approx((100, 9800), abs=10)
    assert probe(path).window is None
    conforms(source, path, metadata)


def stack(path, frames, *settings):
    pages = [frame[..., ::-1].copy() if frame.ndim == 3 else frame for frame in frames]
    assert cv2.imwritemulti(str(path), pages, list(settings))
    return path


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32", "float64"])
@pytest.mark.parametrize("tail", [(), (3,)])
@pytest.mark.parametrize("compression", [1, 5, 8], ids=["raw", "lzw", "deflate"])
def test_pages(tmp_path, dtype, tail, compression):
    frames = noise(12, 18, 26, *tail, dtype=dtype)
    path = stack(tmp_path / "cine.tif", frames, cv2.IMWRITE_TIFF_COMPRESSION, compression)
    metadata = probe_tiff(path)
    assert (metadata.times.count, metadata.height, metadata.width, metadata.channels) == (12, 18, 26, 3 if tail else 1)
    assert (metadata.container, metadata.error) == ("tiff", None)
    with TiffSource(path, metadata=metadata) as source:
        np.testing.assert_array_equal(source.read([11, 0, 5]), frames[[11, 0, 5]].reshape(3, 18, 26, -1))
    conforms(TiffSource, path, metadata)


def tiff(pages, *, order="<", big=False, gap=0):
    """Write a TIFF by hand: `pages` are an image each, and further tags as {number: (type, values)}."""
    link, count = ("Q", "Q") if big else ("I", "H")
    start = {"<": b"II", ">": b"MM"}[order] + struct.pack(
        f"{order}HHH" if big else f"{order}H", *((43, 8, 0) if big else (42,))
    )
    parts, size = [start, b""], len(start) + struct.calcsize(link) + gap
    links = []
    for image, more in pages:
        image = np.ascontiguousarray(image)
        data, place = image.astype(image.dtype.newbyteorder(order)).tobytes(), size
        parts.append(data)
        size += len(data)
        kind = {"u": 1, "i": 2, "f": 3}[image.dtype.kind]
        tags = {
            256: (3, [image.shape[1]]), 257: (3, [image.shape[0]]), 258: (3, [8 * image.dtype.itemsize]),
            259: (3, [1]), 262: (3, [1]), 273: (16 if big else 4, [place]), 277: (3, [1]), 278: (3, [image.shape[0]]),
            279: (4, [len(data)]), 339: (3, [kind]), **more,
        }  # fmt: skip
        entries = b""
        for tag, (form, values) in sorted(tags.items()):
            packed = struct.pack(f"{order}{len(values)}{ {3: 'H', 4: 'I', 16: 'Q'}[form] }", *values)
            room = 8 if big else 4
            if len(packed) > room:
                parts.append(packed)
                packed, size = struct.pack(f"{order}{link}", size), size + len(packed)
            entries += struct.pack(f"{order}HH{link}", tag, form, len(values)) + packed.ljust(room, b"\0")
        links.append(size)
        parts.append(struct.pack(f"{order}{count}", len(tags)) + entries)
        size += len(parts[-1]) + struct.calcsize(link)
        parts.append(b"")
    places = iter([*links, 0])
    return b"".join(part or struct.pack(f"{order}{link}", next(places)) for part in parts)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("big", [False, True], ids=["TIFF", "BigTIFF"])
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "float32"])
def test_both_byte_orders_and_sizes_of_tiff(tmp_path, order, big, dtype):
    frames = noise(5, 6, 7, dtype=dtype)
    (tmp_path / "cine.tif").write_bytes(tiff([(frame, {}) for frame in frames], order=order, big=big))
    metadata = probe_tiff(tmp_path / "cine.tif")
    with TiffSource(tmp_path / "cine.tif", metadata=metadata) as source:
        np.testing.assert_array_equal(source.read([4, 0, 2])[..., 0], frames[[4, 0, 2]])
    conforms(TiffSource, tmp_path / "cine.tif", metadata)


def test_palettes_and_turned_pages_of_tiff(tmp_path):
    image = np.array([[0, 1], [1, 1], [0, 0]], np.uint8)
    colours = [0, 255 * 257, *[0] * 254, 7 * 257, 0, *[0] * 254, 0, 9 * 257, *[0] * 254]
    (tmp_path / "palette.tif").write_bytes(tiff([(image, {262: (3, [3]), 320: (3, colours)})] * 2))
    with TiffSource(tmp_path / "palette.tif", metadata=probe_tiff(tmp_path / "palette.tif")) as source:
        assert source.read([1])[0, 0].tolist() == [[0, 7, 0], [255, 0, 9]]
    (tmp_path / "turned.tif").write_bytes(tiff([(image, {274: (3, [6])})] * 2))
    metadata = probe_tiff(tmp_path / "turned.tif")
    assert (metadata.height, metadata.width) == (2, 3)


def test_a_page_of_another_size_breaks_the_video(tmp_path):
    pages = [(noise(6, 7), {})] * 3 + [(noise(6, 8), {})] + [(noise(6, 7), {})]
    (tmp_path / "cine.tif").write_bytes(tiff(pages))
    metadata = probe_tiff(tmp_path / "cine.tif")
    assert metadata.error == "breaks after 3 of 5 frames: the next is 8 x 6, grey uint8; the first is 7 x 6, grey uint8"
    trusted = probe_tiff(tmp_path / "cine.tif", verify="packets")
    assert trusted.times.count == 5
    with TiffSource(tmp_path / "cine.tif", metadata=trusted) as source:
        with pytest.raises(DecodeError, match=r"cine\.tif: frame 3 is 8 x 6"):
            source.read([3])
        assert source.read([4]).shape == (1, 6, 7, 1)


def test_pages_that_are_cut_off_or_go_in_a_circle(tmp_path):
    path = tmp_path / "cine.tif"
    whole = tiff([(noise(6, 7), {})] * 5)
    path.write_bytes(whole[:-150])
    metadata = probe_tiff(path)
    assert metadata.error == "breaks after 4 frames: page 4 lies past the end of the file"
    conforms(TiffSource, path, metadata)
    with (
        TiffSource(path, metadata=probe_tiff_of(tmp_path, whole)) as source,
        pytest.raises(DecodeError, match="frame 4 lies"),
    ):
        source.read([4])
    first = struct.unpack_from("<I", whole, 4)[0]
    path.write_bytes(whole[:-4] + struct.pack("<I", first))
    metadata = probe_tiff(path)
    assert (metadata.times.count, metadata.error) == (5, "breaks after 5 frames: page 5 is a repeat of an earlier page")
    path.write_bytes(whole[:20])
    with pytest.raises(SourceError, match=r"cine\.tif: its first page "):
        probe_tiff(path)
    path.write_bytes(b"no TIFF")
    with pytest.raises(SourceError, match="is not a TIFF file"):
        probe_tiff(path)
    path.write_bytes(b"")
    with pytest.raises(SourceError, match="cannot be read"):
        probe_tiff(path)
    with pytest.raises(SourceError, match="cannot be read"):
        probe_tiff(tmp_path / "missing.tif")


def probe_tiff_of(folder, data):
    (folder / "whole.tif").write_bytes(data)
    return probe_tiff(folder / "whole.tif")


def test_the_numbers_of_a_page_that_are_cut_off(tmp_path):
    strip = {273: (4, [10**6])}
    (tmp_path / "cine.tif").write_bytes(tiff([(noise(6, 7), {})] * 2 + [(noise(6, 7), strip)]))
    assert probe_tiff(tmp_path / "cine.tif").error.startswith("breaks after 2 of 3 frames: the next cannot be decoded")


def test_a_page_is_decoded_without_those_before(tmp_path):
    pages = [(noise(500, 500) + np.uint8(number), {}) for number in range(40)]
    (tmp_path / "cine.tif").write_bytes(tiff(pages))
    metadata = probe_tiff(tmp_path / "cine.tif", verify="packets")
    before = (tmp_path / "cine.tif").read_bytes()
    tracemalloc.start()
    with TiffSource(tmp_path / "cine.tif", metadata=metadata) as source:
        frame = source.read([39])[0, ..., 0]
    assert tracemalloc.get_traced_memory()[1] < 2e6  # of 10 MB
    tracemalloc.stop()
    np.testing.assert_array_equal(frame, pages[39][0])
    assert (tmp_path / "cine.tif").read_bytes() == before  # the copy that is changed is private


def test_a_file_of_more_than_2_gigabytes(tmp_path):
    pages, gap = [(noise(6, 7) + np.uint8(number), {}) for number in range(3)], 2**31
    data = tiff(pages, big=True, gap=gap)  # what lies before the gap is the header
    with (tmp_path / "large.tif").open("wb") as file:
        file.write(data[:16])
        file.seek(16 + gap)
        file.write(data[16:])
    metadata = probe_tiff(tmp_path / "large.tif")
    assert (metadata.times.count, metadata.error) == (3, None)
    with TiffSource(tmp_path / "large.tif", metadata=metadata) as source:
        for number in (2, 0, 1):
            np.testing.assert_array_equal(source.read([number])[0, ..., 0], pages[number][0])


def test_files_misnamed_as_images_are_described_by_content(tmp_path):
    for name in ("1.tif", "2.tif"):
        (tmp_path / name).write_bytes(b"II*\0" + bytes(124) + b"DICM\2\0\0\0UL\4\0")
    with pytest.raises(SourceError, match=r"1\.tif, is a dicom named as an image \(\.tif\): give the files their own"):
        probe_images(tmp_path)
