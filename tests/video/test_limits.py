"""What a file may expand to: each limit holds for each format that it is about, and names the file and itself."""

import gzip
import os
import struct
import zipfile
import zlib
from dataclasses import fields, replace

import cv2
import numpy as np
import pytest

import cinefeed as cf
from cinefeed.core.errors import LimitError, SettingError, SourceError
from cinefeed.testing.videos import numbered_frames, write_video
from cinefeed.video.ffmpeg.source import EncodedSource
from cinefeed.video.images.image_size import decoded_bytes
from cinefeed.video.images.tiff import Pages
from cinefeed.video.limits import ReadLimits
from cinefeed.video.read_options import ReadOptions

h5py = pytest.importorskip("h5py")
nibabel = pytest.importorskip("nibabel")
pytest.importorskip("pydicom")
from made_dicom import numbered, write_dicom  # noqa: E402  # it imports pydicom

FRAMES = np.arange(12 * 64 * 48, dtype=np.uint32).astype(np.uint8).reshape(12, 64, 48)


def image_folder(folder, suffix):
    place = folder / "cine"
    place.mkdir()
    for number, frame in enumerate(FRAMES):
        cv2.imwrite(str(place / f"{number:02}{suffix}"), np.dstack([frame] * 3) if suffix == ".ppm" else frame)
    return place


def tiff(folder):
    cv2.imwritemulti(str(folder / "cine.tif"), list(FRAMES))
    return folder / "cine.tif"


def npy(folder):
    np.save(folder / "cine.npy", FRAMES)
    return folder / "cine.npy"


def npz(folder, axes="THW"):
    np.savez_compressed(folder / "cine.npz", x=np.moveaxis(FRAMES, 0, axes.index("T")))
    return folder / "cine.npz"


def hdf5(folder):
    with h5py.File(folder / "cine.h5", "w") as file:
        file.create_dataset("x", data=FRAMES, chunks=(4, 64, 48), compression="gzip")
    return folder / "cine.h5"


def nifti(folder, name="cine.nii"):
    nibabel.save(nibabel.Nifti1Image(FRAMES.T[:, :, None], np.eye(4)), folder / name)
    return folder / name


def dicom(folder, **elements):
    return write_dicom(folder / "cine.dcm", numbered(12, height=64, width=48), **elements)


def deflated(folder, *, zeros=0):
    """A deflated DICOM file, which ends in a value of zeros."""
    path = dicom(folder, syntax="1.2.840.10008.1.2.1")
    whole = path.read_bytes()
    marker = b"\x02\x00\x10\x00UI"
    begin = 144 + struct.unpack_from("<I", whole, 140)[0]  # the group of the file's own elements, then the data set
    meta, rest = whole[:begin], whole[begin:]
    at = meta.index(marker)
    length = struct.unpack_from("<H", meta, at + 6)[0]
    uid = b"1.2.840.10008.1.2.1.99"
    changed = marker + struct.pack("<H", len(uid)) + uid
    meta = meta[:at] + changed + meta[at + 8 + length :]
    group = struct.unpack_from("<I", meta, 140)[0] + len(changed) - 8 - length
    meta = meta[:140] + struct.pack("<I", group) + meta[144:]
    deflater = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    path.write_bytes(meta + deflater.compress(rest + bytes(zeros)) + deflater.flush())
    return path


def animated_webp(folder):
    if not hasattr(cv2, "imwriteanimation"):
        pytest.skip("this OpenCV writes no animations")
    animation = cv2.Animation()
    animation.frames, animation.durations = list(numbered_frames(12)), [40] * 12
    assert cv2.imwriteanimation(str(folder / "cine.webp"), animation)
    return folder / "cine.webp"


def dicom_video(folder):
    """A DICOM file that holds one H.264 stream."""
    stream = write_video(folder / "stream.mp4", numbered_frames(12)).read_bytes()
    colours = {"PhotometricInterpretation": "YBR_PARTIAL_420"}
    pixels = np.zeros((12, 64, 64, 3), np.uint8)
    syntax = "1.2.840.10008.1.2.4.102"
    return write_dicom(folder / "video.dcm", pixels, syntax=syntax, encoded=[[stream]], table=False, **colours)


def encoded(name, **settings):
    return lambda folder: write_video(folder / name, numbered_frames(12), **settings)


MADE = {
    "png": lambda folder: image_folder(folder, ".png"),
    "jpeg": lambda folder: image_folder(folder, ".jpg"),
    "bmp": lambda folder: image_folder(folder, ".bmp"),
    "ppm": lambda folder: image_folder(folder, ".ppm"),
    "jpeg 2000": lambda folder: image_folder(folder, ".jp2"),
    "webp": lambda folder: image_folder(folder, ".webp"),
    "tiff images": lambda folder: image_folder(folder, ".tif"),
    "tiff": tiff,
    "npy": npy,
    "npz": npz,
    "hdf5": hdf5,
    "nifti": nifti,
    "nifti, packed": lambda folder: nifti(folder, "cine.nii.gz"),
    "dicom": dicom,
    "dicom, deflated": deflated,
    "mp4": encoded("cine.mp4"),
    "avi": encoded("cine.avi", codec="mpeg4"),
    "gif": encoded("cine.gif", codec="gif", pixel_format="rgb8"),
    "animated webp": animated_webp,
    "dicom, a video": dicom_video,
}


def refusal(path, **limits):
    """Return what is said of a file that the limits refuse, and see that it is read with raised ones."""
    reading = ReadOptions(limits=ReadLimits(**limits))
    with pytest.raises(LimitError) as refused:
        cf.probe(path, reading=reading)
    assert str(path) in str(refused.value)
    for name in limits:
        assert f"ReadLimits({name}=...)" in str(refused.value)
    with cf.open_video(path) as source:
        assert len(source) == 12 and len(source.read([11])) == 1
    return str(refused.value)


@pytest.mark.parametrize("kind", MADE)
def test_a_frame(tmp_path, kind):
    assert "a frame takes" in refusal(MADE[kind](tmp_path), max_frame_bytes=2000)


@pytest.mark.parametrize(
    "kind", ["mp4", "avi", "gif", "animated webp", "dicom", "dicom, deflated", "dicom, a video", "tiff"]
)
def test_the_number_of_frames(tmp_path, kind):
    assert "promises" in refusal(MADE[kind](tmp_path), max_frames=5)


TIMED = ["png", "tiff", "npz", "hdf5", "nifti, packed", "mp4", "avi", "gif", "animated webp", "dicom, a video"]


@pytest.mark.parametrize("kind", TIMED)
def test_the_time(tmp_path, kind):
    assert "takes longer" in refusal(MADE[kind](tmp_path), max_file_seconds=1e-6)


@pytest.mark.parametrize("kind", ["npy", "hdf5", "nifti", "dicom"])
def test_the_time_for_percentiles(tmp_path, kind):
    path = MADE[kind](tmp_path)
    reading = ReadOptions(window="percentiles", limits=ReadLimits(max_file_seconds=1e-6))
    with pytest.raises(LimitError, match="takes longer"):
        cf.probe(path, reading=reading)
    assert cf.probe(path, reading=replace(reading, limits=ReadLimits())).window is not None


def test_the_time_for_values_of_frames_that_the_probe_does_not_decode(tmp_path):
    np.save(tmp_path / "cine.npy", FRAMES.astype(np.int16))
    for seconds, count in ((1e-6, 0), (3600.0, 12)):
        reading = ReadOptions(limits=ReadLimits(max_file_seconds=seconds))
        manifest = cf.Manifest.scan(tmp_path, reading=reading, progress=False)
        assert manifest.column("num_frames").to_pylist() == [count]
        assert ("max_file_seconds" in str(manifest.column("error")[0].as_py())) is (count == 0)
        assert (manifest.column("value_max")[0].as_py() is None) is (count == 0)


@pytest.mark.parametrize("make", [hdf5, deflated])
def test_the_limit_of_unpacked_bytes(tmp_path, make):
    assert "unpacks to" in refusal(make(tmp_path), max_unpacked_bytes=4000)


def test_a_packed_array_whose_frames_interleave(tmp_path):
    path = npz(tmp_path, "HWT")
    with pytest.raises(SourceError, match="max_unpacked_bytes"):
        cf.probe(path, reading=ReadOptions(axes="HWT", limits=ReadLimits(max_unpacked_bytes=4000)))
    assert cf.probe(path, reading=ReadOptions(axes="HWT")).times.count == 12


def test_a_scan_that_takes_too_long_is_not_tried_again_for_each_sample_of_a_file(tmp_path):
    np.savez_compressed(tmp_path / "set.npz", x=np.stack([FRAMES] * 3))
    reading = ReadOptions(axes="NTHW", limits=ReadLimits(max_file_seconds=1e-6))
    manifest = cf.Manifest.scan(tmp_path, reading=reading, progress=False)
    errors = manifest.column("error").to_pylist()
    assert len(errors) == 3 and len(set(errors)) == 1 and "max_file_seconds" in errors[0]


def test_bombs_are_refused_by_default(tmp_path):
    header = struct.pack(">IIBBBBB", 30_000, 30_000, 8, 0, 0, 0, 0)
    chunk = b"IHDR" + header
    data = zlib.compress(bytes(1000))
    png = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk))
    png += struct.pack(">I", len(data)) + b"IDAT" + data + struct.pack(">I", zlib.crc32(b"IDAT" + data))
    (tmp_path / "images").mkdir()
    for name in ("0.png", "1.png"):
        (tmp_path / "images" / name).write_bytes(png)
    with h5py.File(tmp_path / "unwritten.h5", "w") as file:
        file.create_dataset("x", (2, 283_000, 283_000), "u1", chunks=(1, 1000, 1000))
    with gzip.open(tmp_path / "bomb.nii.gz", "wb") as file:
        volume = nibabel.Nifti1Image(np.zeros((1, 1, 1, 1), np.uint8), np.eye(4))
        volume.header["vox_offset"] = 352
        volume.header["dim"] = [4, 32000, 32000, 1, 4, 1, 1, 1]
        file.write(volume.header.binaryblock.replace(b"ni1", b"n+1") + bytes(1000))
    for path in (tmp_path / "images", tmp_path / "unwritten.h5", tmp_path / "bomb.nii.gz"):
        with pytest.raises(SourceError, match=r"a frame takes [0-9,]+ bytes, beyond max_frame_bytes") as refused:
            cf.probe(path)
        assert str(path) in str(refused.value)
    path = deflated(tmp_path, zeros=600_000_000)
    assert path.stat().st_size < 1_000_000
    with pytest.raises(SourceError, match=r"cine\.dcm: its deflated data set unpacks to"):
        cf.probe(path)


def test_a_header_of_an_array_that_unpacks_to_gigabytes(tmp_path):
    with zipfile.ZipFile(tmp_path / "bomb.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x.npy", b"\x93NUMPY\x02\x00" + struct.pack("<I", 2**30) + b" " * 50_000_000)
    with pytest.raises(SourceError, match="header is 1073741824 bytes long"):
        cf.probe(tmp_path / "bomb.npz", part="/x")


def test_a_compressed_dicom_frame_larger_than_its_header(tmp_path):
    jpeg = cv2.imencode(".jp2", FRAMES[0])[1].tobytes()
    at = jpeg.index(b"\xff\x4f\xff\x51") + 8
    huge = jpeg[:at] + struct.pack(">II", 60_000, 60_000) + jpeg[at + 8 :]
    frames = FRAMES[:1]
    path = write_dicom(tmp_path / "huge.dcm", frames, syntax="1.2.840.10008.1.2.4.90", encoded=[[huge]])
    with pytest.raises(SourceError, match=r"its image: a frame takes 3,600,000,000 bytes"):
        cf.probe(path)


def test_a_file_that_was_scanned_with_raised_limits_is_fed(tmp_path, monkeypatch):
    monkeypatch.setattr("cinefeed.video.images.source.DEFAULT_LIMITS", ReadLimits(max_frame_bytes=100))
    monkeypatch.setattr(
        "cinefeed.video.dicom.source.DEFAULT_LIMITS", ReadLimits(max_frame_bytes=100, max_unpacked_bytes=9)
    )
    for make in (tiff, deflated):
        path = make(tmp_path)
        metadata = cf.probe(path)
        with cf.open_video(path, metadata=metadata) as source:
            assert len(source.read([11])) == 1


@pytest.mark.parametrize("count", ["1000000000", "1" + 30 * "0"])
def test_a_dicom_file_that_promises_more_frames_than_it_has_bytes(tmp_path, count):
    path = dicom(tmp_path)
    whole = path.read_bytes()
    at = whole.index(b"\x28\x00\x08\x00IS")
    length = struct.unpack_from("<H", whole, at + 6)[0]
    text = count.encode().ljust(len(count) + len(count) % 2)
    path.write_bytes(whole[: at + 6] + struct.pack("<H", len(text)) + text + whole[at + 8 + length :])
    for attempt in (cf.probe, cf.open_video):
        with pytest.raises(
            SourceError, match=r"cine\.dcm: its header promises 1,000,000,000.* frames, but the file has"
        ):
            attempt(path)
    manifest = cf.Manifest.scan(tmp_path, progress=False)
    assert manifest.column("num_frames").to_pylist() == [0]
    with pytest.raises(SourceError, match=r"promises 1,000,000 frames.*beyond|its header promises"):
        path.write_bytes(whole[: at + 6] + struct.pack("<H", 8) + b"1000000 " + whole[at + 8 + length :])
        cf.probe(path)


def test_a_dicom_file_that_is_cut_off_keeps_its_frames(tmp_path):
    path = dicom(tmp_path)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    metadata = cf.probe(path)
    assert 0 < metadata.times.count < 12 and "of 12 frames: the file is cut off" in metadata.error


def test_an_image_that_was_replaced_by_a_larger_one_after_the_scan(tmp_path):
    path = image_folder(tmp_path, ".png")
    metadata = cf.probe(path)
    _, huge = cv2.imencode(".png", np.zeros((64, 48), np.uint8))
    huge = huge.tobytes()
    (path / "03.png").write_bytes(huge[:16] + struct.pack(">II", 60_000, 60_000) + huge[24:])
    with cf.open_video(path, metadata=metadata) as source, pytest.raises(SourceError, match="max_frame_bytes"):
        source.read([3])


@pytest.mark.parametrize("suffix", [".bmp", ".jp2", ".jpg", ".png", ".pgm", ".ppm", ".webp", ".tif", ".pbm"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("channels", [1, 3])
def test_the_size_of_an_image_is_never_less_than_what_is_decoded(tmp_path, suffix, dtype, channels):
    if (channels == 3) is (suffix in (".pgm", ".pbm")) or (channels == 1 and suffix == ".ppm"):
        pytest.skip("it holds the other number of channels")
    if dtype is np.uint16 and suffix not in (".jp2", ".png", ".pgm", ".ppm", ".tif"):
        pytest.skip("it holds 8 bits")
    pixels = np.random.default_rng(0).integers(0, 2**8, (70, 90, channels)).astype(dtype)
    data = cv2.imencode(suffix, pixels[..., 0] if channels == 1 else pixels)[1]
    image = cv2.imdecode(data, cv2.IMREAD_ANYCOLOR | cv2.IMREAD_ANYDEPTH)
    size = Pages(tmp_path, data.ravel()).decoded_bytes(0) if suffix == ".tif" else decoded_bytes(data.ravel())
    assert image.nbytes <= size <= 4 * image.nbytes


def test_headers_that_break_have_no_size():
    for kind in (".bmp", ".jp2", ".jpg", ".png", ".pgm", ".webp"):
        data = cv2.imencode(kind, FRAMES[0])[1].tobytes()
        assert decoded_bytes(data) is not None
        for length in range(20):
            assert decoded_bytes(data[:length]) is None or kind == ".pgm"
    assert decoded_bytes(b"GIF89a" + bytes(100)) is None, "a kind that is not on the list"


@pytest.mark.parametrize("name", [field.name for field in fields(ReadLimits)])
def test_limits_are_positive(name):
    with pytest.raises(SettingError, match=name):
        ReadLimits(**{name: 0})


def with_a_smaller_frame(tmp_path, number):
    """Return a video of 24 frames, one of which is of another size."""
    whole = write_video(tmp_path / "a.avi", numbered_frames(24), codec="mjpeg", pixel_format="yuvj420p")
    other = write_video(
        tmp_path / "b.avi", numbered_frames(1, height=32, width=32), codec="mjpeg", pixel_format="yuvj420p"
    )
    data, patch = bytearray(whole.read_bytes()), other.read_bytes()
    picture = patch[patch.index(b"\xff\xd8\xff") : patch.rindex(b"\xff\xd9") + 2]
    starts = [
        at for at in range(len(data)) if data[at : at + 4] == b"00dc" and data[at + 8 : at + 11] == b"\xff\xd8\xff"
    ]
    begin, size = starts[number] + 8, struct.unpack_from("<I", data, starts[number] + 4)[0]
    assert len(picture) <= size
    data[begin : begin + size] = picture.ljust(size, b"\0")
    whole.write_bytes(bytes(data))
    return whole


@pytest.mark.parametrize("verify", ["decode", "packets"])
def test_a_change_of_size_among_the_first_frames_is_detected_by_each_probe(tmp_path, verify):
    metadata = cf.probe(with_a_smaller_frame(tmp_path, 7), verify=verify)
    assert metadata.times.count == 7 and "the next is 32 x 32" in metadata.error


def test_a_frame_of_another_size_that_no_scan_has_decoded_raises(tmp_path):
    whole = with_a_smaller_frame(tmp_path, 20)  # behind the 16 frames that a pass over packets decodes
    metadata = cf.probe(whole)
    assert metadata.times.count == 20 and "the next is 32 x 32" in metadata.error
    metadata = cf.probe(whole, verify="packets")
    assert metadata.times.count == 20  # MJPEG is decoded
    equal = write_video(tmp_path / "c.avi", numbered_frames(24), codec="mjpeg", pixel_format="yuvj420p")
    metadata = cf.probe(equal)  # as of a manifest from elsewhere
    with EncodedSource(whole, metadata=metadata) as source:
        assert source.read([19]).shape == (1, 64, 64, 3)
        with pytest.raises(SourceError, match=r"a\.avi: frame 20 is 32 x 32, its metadata gives 64 x 64"):
            source.read([20])


def test_a_second_read_after_one_that_failed_names_the_file_again(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (200, 64, 64, 3)).astype(np.uint8)
    path = write_video(tmp_path / "gone.avi", noise, codec="mpeg4")
    metadata = cf.probe(path)
    with EncodedSource(path, metadata=metadata) as source:
        source.read([0])
        size = path.stat().st_size
        with path.open("r+b") as file:
            file.write(bytes(size))
        for _ in range(3):
            with pytest.raises(SourceError, match=r"gone\.avi"):
                source.read([180])


def many_samples(folder, kind):
    """Return a file of three samples."""
    frames = np.stack([FRAMES] * 3)
    if kind == "npy":
        np.save(folder / "set.npy", frames)
    elif kind == "npz, one array":
        np.savez(folder / "set.npz", x=frames)
    elif kind == "npz, arrays":
        np.savez(folder / "set.npz", **dict.fromkeys("abc", FRAMES))
    elif kind == "nifti":
        nibabel.save(nibabel.Nifti1Image(frames.T.swapaxes(2, 3), np.eye(4)), folder / "set.nii")
    else:
        with h5py.File(folder / "set.h5", "w") as file:
            for name in "x" if kind == "hdf5, one set" else "abc":
                file[name] = frames if kind == "hdf5, one set" else FRAMES
    return next(folder.glob("set.*"))


@pytest.mark.parametrize("kind", ["npy", "npz, one array", "npz, arrays", "nifti", "hdf5, one set", "hdf5, sets"])
def test_a_file_of_too_many_samples_is_named_and_not_listed(tmp_path, kind):
    np.save(tmp_path / "other.npy", FRAMES)
    path = many_samples(tmp_path, kind)
    reading = ReadOptions(slice="each")
    for limit, rows in ((3, 4), (2, 1)):
        limited = replace(reading, limits=ReadLimits(max_samples_per_file=limit))
        manifest = cf.Manifest.scan(tmp_path, reading=limited, progress=False)
        assert len(manifest) == rows and manifest.column("error").null_count == rows
        assert ("more than 2 samples (max_samples_per_file)" in str(manifest)) is (limit == 2)
        assert (path.name in str(manifest.not_read)) is (limit == 2)


def test_a_header_that_promises_millions_of_samples_lists_none(tmp_path):
    """20 million rows, each a list of two names and a row of the manifest, took 2.9 GB."""
    header = b"\x93NUMPY\x01\x00v\x00" + b"{'descr': '|u1', 'fortran_order': False, 'shape': (20000000, 2, 1, 1), }"
    (tmp_path / "bomb.npy").write_bytes(header.ljust(127) + b"\n")
    os.truncate(tmp_path / "bomb.npy", 128 + 40_000_000)
    np.save(tmp_path / "other.npy", FRAMES)
    manifest = cf.Manifest.scan(tmp_path, reading=ReadOptions(axes="NTHW"), progress=False)
    assert "more than 1,000,000 samples" in str(manifest)
