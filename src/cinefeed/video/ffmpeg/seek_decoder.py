"""Decoding of any encoded video through PyAV. A missing frame is searched for in four steps, each safer and slower.

A read seeks to the previous key frame, checks where the seek landed, and decodes until all requested frames are found.
Non-reference frames that are not requested are skipped. If a read begins after the last one, with no key frame between,
decoding continues without a seek, unless the decoder was drained. If a frame is missing, these steps follow in order:

1. from the previous key frame, with skipping
2. the same without skipping, after reopening the file with probing
3. from earlier and earlier key frames
4. from the start to the end, counting frames; the count must match the metadata

Frames are identified by timestamp, so a wrong landing costs time but never returns a wrong frame. Two exceptions are
handled:

- Key flags can be wrong, and some decoders begin anywhere and fill missing parts with grey. So after a seek frames
  before the first that the decoder itself marks as a key frame are ignored, and frames that it marks as corrupt.
- MPEG-PS and TS stamp PES packets, not frames. After a seek into the middle of a frame FFmpeg may give the remainder
  the timestamp of the next frame, and so on. So in these files a read begins at a key frame that has its own timestamp,
  known from the index.
"""

import av
import numpy as np

from cinefeed.core.errors import DecodeError
from cinefeed.video.embedded import VideoPath
from cinefeed.video.ffmpeg.damage import DamageLog, Soundness, damage_error, damaged_among
from cinefeed.video.ffmpeg.decode_range import DecodeRange, runs_of, seek_helps
from cinefeed.video.ffmpeg.packets import STAMPED_BY_PES, is_whole_frame, packets_of
from cinefeed.video.ffmpeg.probe import open_stream, states_its_stamps
from cinefeed.video.metadata import VideoMetadata

_EARLIER = 6  # frames: these containers seek by decoding timestamps, which precede presentation timestamps


class SeekDecoder:
    """An open video file. `skips` allows the decoder to leave out frames that are not needed.

    Raises SourceError if the file holds no video, DecodeError if it breaks before a requested frame.
    """

    def __init__(self, path: VideoPath, metadata: VideoMetadata, *, skips: bool) -> None:
        self.path, self.metadata = path, metadata
        self._skips = skips
        self._probe = not states_its_stamps(metadata)
        self._back = 0  # by how many key frames seeks in this file land too late
        self._container: av.container.InputContainer | None = None
        self._reached: int | None = None  # largest timestamp sent to the decoder, if decoding can continue after it
        self._last = -1  # the frame at that timestamp
        self._soundness = Soundness(at_start=False)  # of the decoder's output since it started
        self.decoded_count = 0  # frames decoded so far
        self._open()

    def find(self, runs: list[DecodeRange]) -> dict[int, av.VideoFrame]:
        """Return the frames of these runs, by number."""
        decoded_frames: dict[int, av.VideoFrame] = {}
        if self._container is None:  # the file could not be opened again in an earlier read
            self._open()
        for run in runs:
            self._climb(dict(zip(run.stamps, run.numbers, strict=True)), run.key, decoded_frames)
        return decoded_frames

    def count(self, numbers: list[int]) -> dict[int, av.VideoFrame]:
        """Return these frames of a file without usable timestamps, counted from its start."""
        decoded_frames: dict[int, av.VideoFrame] = {}
        self._count(numbers, decoded_frames)
        return decoded_frames

    def conceal(self, numbers: list[int]) -> dict[int, av.VideoFrame]:
        """Return damaged frames with FFmpeg's substitutes, independent of what was read before.

        Each is decoded by a new decoder from the previous key frame; if that does not return it, from the start.
        """
        decoded_frames: dict[int, av.VideoFrame] = {}
        for run in runs_of(np.array(numbers), self.metadata) if self.metadata.ticks is not None else ():
            self._conceal_run(run, decoded_frames)
        if missing := [number for number in numbers if number not in decoded_frames]:
            self._count(missing, decoded_frames, conceal=True)
        return decoded_frames

    def close(self) -> None:
        """Close the file; frames that were returned remain valid."""
        if self._container is not None:
            self._container.close()
            self._container = None

    def _open(self) -> None:
        """Open the file, or reopen it at its start."""
        self.close()
        self._reached = None
        self._container, self._stream = open_stream(
            self.path, number=self.metadata.stream, container=self.metadata.container, probe=self._probe
        )
        self._fresh = True

    def _climb(self, pending: dict[int, int], key: int, decoded_frames: dict[int, av.VideoFrame]) -> None:
        """Find the frames of one run step by step; `pending` maps timestamps to numbers, `key` indexes key frames."""
        continues = self._reached is not None and min(pending) > self._reached
        if continues and not seek_helps(self._last, key, self.metadata.key_frames.astype(np.int64)):
            self._send(pending, decoded_frames, skip=self._skips, started=True)
            if not pending:
                return
        is_late = self._from_key(pending, key - self._back, decoded_frames, skip=self._skips)
        if not pending:
            return
        if not is_late:
            self._skips, self._probe = False, True
            self._open()
            is_late = self._from_key(pending, key - self._back, decoded_frames, skip=False)
        back = self._back
        while pending and key - back > 0:
            back = min(2 * back or 1, key)
            self._from_key(pending, key - back, decoded_frames, skip=self._skips)
        if pending:
            self._count(list(pending.values()), decoded_frames)
        else:
            self._back = back  # the next seek in this file goes back as far as this one

    def _from_key(
        self, pending: dict[int, int], key: int, decoded_frames: dict[int, av.VideoFrame], *, skip: bool
    ) -> bool:
        """Decode from a key frame until all of `pending` are found or the file ends; return whether the seek was late.

        Frames that are found move from `pending` to `decoded_frames`.
        """
        ticks = self.metadata.ticks
        assert ticks is not None
        at_start = key < 0 or (self._fresh and int(self.metadata.key_frames[key]) == 0)
        if at_start and not self._fresh:
            self._open()
        self._fresh, self._soundness = False, Soundness(at_start=at_start)
        if not at_start:
            assert self._container is not None
            earlier = _EARLIER * ticks.step if self.metadata.container in STAMPED_BY_PES else 0
            try:
                self._container.seek(int(ticks.of_frames(self.metadata.key_frames[key])) - earlier, stream=self._stream)
            except (av.FFmpegError, IndexError):  # PyAV raises IndexError if a stream appears later
                return False
        return self._send(pending, decoded_frames, skip=skip, started=at_start)

    def _send(
        self, pending: dict[int, int], decoded_frames: dict[int, av.VideoFrame], *, skip: bool, started: bool
    ) -> bool:
        """Send packets to the decoder, from a key frame on unless `started`; return whether they begin too late."""
        assert self._container is not None
        codec, last = self._stream.codec_context, max(pending.values())
        earliest, latest, unsent_stamps, all_requested = min(pending), max(pending), set(pending), dict(pending)
        reached, all_stamped, skipping = earliest, True, False
        self._reached = None
        packets = packets_of(self._container, self._stream)
        try:
            codec.skip_frame = "DEFAULT"
            for place, packet in enumerate(packets):
                stamp = packet.pts
                if not started:
                    if not (packet.size and packet.is_keyframe and self._has_its_own_stamp(packet, place)):
                        continue
                    if stamp is not None and stamp > earliest:
                        return True
                    started = True
                if stamp is None:
                    all_stamped = False
                elif stamp > reached:
                    reached = stamp
                if stamp in unsent_stamps:
                    unsent_stamps.discard(stamp)
                    if skipping:
                        codec.skip_frame, skipping = "DEFAULT", False
                elif skip and not skipping and packet.size:
                    codec.skip_frame, skipping = "NONREF", True
                self._keep(codec.decode(packet), pending, decoded_frames)
                if not pending and reached <= latest:
                    if all_stamped:
                        self._reached, self._last = reached, last
                    return False
                if not unsent_stamps:
                    # Every requested frame has been sent. The decoder still holds it for reordering, or holds a frame
                    # displayed later, to which it may refer.
                    self._keep(codec.decode(None), pending, decoded_frames)
                    if self._soundness.is_damaged:
                        for stamp in all_requested.keys() - pending.keys():
                            del decoded_frames[all_requested[stamp]]
                        pending |= all_requested
                    return False
        except (av.FFmpegError, IndexError):  # PyAV raises IndexError if a stream appears later
            return False  # the next step shows whether the file is broken or only this way of reading it
        finally:
            packets.close()
        return not started and self.metadata.container in STAMPED_BY_PES

    def _conceal_run(self, run: DecodeRange, decoded_frames: dict[int, av.VideoFrame]) -> None:
        """Decode frames of one run from their own key frame, skipping none, and accept damaged output."""
        assert self.metadata.ticks is not None
        if run.key < 0:
            return
        self._open()
        assert self._container is not None
        self._fresh = False
        pending = dict(zip(run.stamps, run.numbers, strict=True))
        key_stamp = int(
            self.metadata.ticks.of_frames(self.metadata.key_frames[run.key : run.key + 1].astype(np.int64))[0]
        )
        packets, started = packets_of(self._container, self._stream), False
        try:
            self._container.seek(key_stamp, stream=self._stream)
            for packet in packets:
                started = started or (packet.pts == key_stamp and packet.is_keyframe)
                for frame in self._stream.codec_context.decode(packet) if started else ():
                    if frame.pts in pending:
                        decoded_frames[pending.pop(frame.pts)] = frame
                if not pending:
                    break
        except (av.FFmpegError, IndexError):  # PyAV raises IndexError if a stream appears later
            pass
        finally:
            packets.close()

    def _has_its_own_stamp(self, packet: "av.Packet[av.VideoStream]", place: int) -> bool:
        """Return whether a key frame, packet number `place` after a seek, has the timestamp stored in the file."""
        if self.metadata.container not in STAMPED_BY_PES:
            return True
        assert self.metadata.ticks is not None
        has_known_stamp = packet.pts in self.metadata.ticks.of_frames(self.metadata.key_frames.astype(np.int64))
        return has_known_stamp and is_whole_frame(packet, place)

    def _keep(
        self, frames: list[av.VideoFrame], pending: dict[int, int], decoded_frames: dict[int, av.VideoFrame]
    ) -> None:
        self.decoded_count += len(frames)
        for frame in frames:
            sound, stamp = self._soundness.after(frame), frame.pts
            if sound and stamp in pending:
                decoded_frames[pending.pop(stamp)] = frame

    def _count(self, numbers: list[int], decoded_frames: dict[int, av.VideoFrame], *, conceal: bool = False) -> None:
        """Decode the file from its start and count frames, without using the index.

        If timestamps exist and did not lead to a frame, the numbers may come from another count: of packets, or of an
        earlier version of the file. So the whole file is decoded, and must have as many frames as its metadata. Raises
        DecodeError if it does not, or if a frame is damaged and `conceal` is false.
        """
        self._probe = True
        self._open()
        assert self._container is not None
        self._fresh = False
        missing, frames_by_number, count, reason = set(numbers), dict[int, av.VideoFrame](), 0, "the file ends"
        packets, log = packets_of(self._container, self._stream), DamageLog(self.metadata.codec)
        try:
            for packet in packets:
                log.send(packet.pts)
                for frame in packet.decode():
                    log.take(frame)
                    if count in missing:
                        frames_by_number[count] = frame
                        missing.discard(count)
                    count += 1
                if not missing and self.metadata.ticks is None:
                    break
        except (av.FFmpegError, OSError, IndexError) as error:
            reason = f"the file breaks ({getattr(error, 'strerror', None) or error})"
        finally:
            packets.close()
        count_differs = count < self.metadata.times.count if self.metadata.error else count != self.metadata.times.count
        if missing or (self.metadata.ticks is not None and count_differs):
            listing = ", ".join(map(str, sorted(numbers)[:8])) + (" ..." if len(numbers) > 8 else "")
            raise DecodeError(
                f"{self.path}: asked for frames {listing}, {reason} after {count} of {self.metadata.times.count} "
                "frames; "
                "the file has changed or is damaged: scan it again, with verify='decode'"
            )
        is_damaged = damaged_among(np.array(numbers), log.ranges())
        if is_damaged.any() and not conceal:
            raise damage_error(self.path, int(np.array(numbers)[is_damaged].min()))
        decoded_frames.update(frames_by_number)
