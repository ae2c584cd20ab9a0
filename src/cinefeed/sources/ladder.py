"""Encoded video through PyAV, of any format: a ladder of ways to find a frame, each surer and slower than the last.

A read seeks to the key frame before, looks where the seek landed, and decodes until every wanted frame is there.
Frames that no other frame needs and nobody wants are skipped. A read that begins after the last one, with no key frame
between, decodes on instead, unless the decoder was drained. Where a frame is missing it climbs a ladder:

1. from the key frame before, skipping
2. the same without skipping, the file opened anew in full
3. from earlier and earlier key frames
4. from the start to the end, counting; the count must be that of the facts

A frame is known by its time stamp, so a wrong landing costs time and never gives a wrong frame. Two things could:

- Key flags lie, and some decoders begin anywhere, with grey in place of what they lack. So after a seek nothing counts
  that the decoder puts out before a frame that it calls a key frame itself, and nothing that it marks as corrupt.
- MPEG-PS and TS stamp PES packets, not frames. After a seek into the middle of a frame FFmpeg may give the remains the
  stamp of the next one, which gets that of the one after, and so on. So there a read begins at a key frame whose stamp
  is its own and known.
"""

import av
import numpy as np

from cinefeed.errors import DecodeError
from cinefeed.sources.base import Facts
from cinefeed.sources.damage import DamageLog, Soundness, damage_error, damaged_among
from cinefeed.sources.embedded import VideoPath
from cinefeed.sources.index import open_stream, states_its_stamps
from cinefeed.sources.packets import STAMPED_BY_PES, is_whole_frame, packets_of
from cinefeed.sources.runs import Run, runs_of, seek_helps

_EARLIER = 6  # frames: their seeks look for decoding stamps, which lie before those of presentation


class Ladder:
    """An open video file. `skips` says that frames which nobody needs may be left out.

    Raises SourceError where the file holds no video, DecodeError where it breaks before a frame that is asked for.
    """

    def __init__(self, path: VideoPath, facts: Facts, *, skips: bool) -> None:
        self.path, self.facts = path, facts
        self._skips = skips
        self._probed = not states_its_stamps(facts)
        self._back = 0  # how many key frames too late the seeks of this file land
        self._container: av.container.InputContainer | None = None
        self._reached: int | None = None  # the largest stamp sent to the decoder, where decoding can go on after it
        self._last = -1  # the frame found there
        self._soundness = Soundness(at_start=False)  # of what the decoder put out since it began
        self.decoded = 0  # frames so far
        self._open()

    def find(self, runs: list[Run]) -> dict[int, av.VideoFrame]:
        """Return the frames of these runs, by number."""
        found: dict[int, av.VideoFrame] = {}
        if self._container is None:  # the file could not be opened again in an earlier read
            self._open()
        for run in runs:
            self._climb(dict(zip(run.stamps, run.numbers, strict=True)), run.key, found)
        return found

    def count(self, numbers: list[int]) -> dict[int, av.VideoFrame]:
        """Return these frames of a file whose stamps tell nothing, counted from its start."""
        found: dict[int, av.VideoFrame] = {}
        self._count(numbers, found)
        return found

    def conceal(self, numbers: list[int]) -> dict[int, av.VideoFrame]:
        """Return damaged frames as FFmpeg makes them up, which depends on nothing that was read before.

        Each is decoded by a new decoder from the key frame before; where it does not come, from the start.
        """
        found: dict[int, av.VideoFrame] = {}
        for run in runs_of(np.array(numbers), self.facts) if self.facts.ticks is not None else ():
            self._conceal_run(run, found)
        if missing := [number for number in numbers if number not in found]:
            self._count(missing, found, conceal=True)
        return found

    def close(self) -> None:
        """Let go of the file; frames already found stay valid."""
        if self._container is not None:
            self._container.close()
            self._container = None

    def _open(self) -> None:
        """Open the file, or open it anew at its start."""
        self.close()
        self._reached = None
        self._container, self._stream = open_stream(
            self.path, number=self.facts.stream, container=self.facts.container, probed=self._probed
        )
        self._fresh = True

    def _climb(self, wanted: dict[int, int], key: int, found: dict[int, av.VideoFrame]) -> None:
        """Find the frames of one run, by the ladder; `wanted` maps stamps to numbers, `key` counts key frames."""
        on = self._reached is not None and min(wanted) > self._reached
        if on and not seek_helps(self._last, key, self.facts.key_frames.astype(np.int64)):
            self._send(wanted, found, skip=self._skips, started=True)
            if not wanted:
                return
        late = self._from_key(wanted, key - self._back, found, skip=self._skips)
        if not wanted:
            return
        if not late:
            self._skips, self._probed = False, True
            self._open()
            late = self._from_key(wanted, key - self._back, found, skip=False)
        back = self._back
        while wanted and key - back > 0:
            back = min(2 * back or 1, key)
            self._from_key(wanted, key - back, found, skip=self._skips)
        if wanted:
            self._count(list(wanted.values()), found)
        else:
            self._back = back  # the next seek in this file begins where this one succeeded

    def _from_key(self, wanted: dict[int, int], key: int, found: dict[int, av.VideoFrame], *, skip: bool) -> bool:
        """Decode from a key frame until all of `wanted` are found or the file ends; say whether the seek came late.

        What is found moves from `wanted` to `found`.
        """
        ticks = self.facts.ticks
        assert ticks is not None
        at_start = key < 0 or (self._fresh and int(self.facts.key_frames[key]) == 0)
        if at_start and not self._fresh:
            self._open()
        self._fresh, self._soundness = False, Soundness(at_start=at_start)
        if not at_start:
            assert self._container is not None
            earlier = _EARLIER * ticks.step if self.facts.container in STAMPED_BY_PES else 0
            try:
                self._container.seek(int(ticks.of_frames(self.facts.key_frames[key])) - earlier, stream=self._stream)
            except (av.FFmpegError, IndexError):  # IndexError: PyAV's, where a stream appears on the way
                return False
        return self._send(wanted, found, skip=skip, started=at_start)

    def _send(self, wanted: dict[int, int], found: dict[int, av.VideoFrame], *, skip: bool, started: bool) -> bool:
        """Send packets to the decoder, the first a key frame unless `started`; say whether they begin too late."""
        assert self._container is not None
        codec, last = self._stream.codec_context, max(wanted.values())
        earliest, latest, unsent, requested = min(wanted), max(wanted), set(wanted), dict(wanted)
        reached, dated, skipping = earliest, True, False
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
                    dated = False
                elif stamp > reached:
                    reached = stamp
                if stamp in unsent:
                    unsent.discard(stamp)
                    if skipping:
                        codec.skip_frame, skipping = "DEFAULT", False
                elif skip and not skipping and packet.size:
                    codec.skip_frame, skipping = "NONREF", True
                self._keep(codec.decode(packet), wanted, found)
                if not wanted and reached <= latest:
                    if dated:
                        self._reached, self._last = reached, last
                    return False
                if not unsent:
                    # Every wanted frame has been sent: the decoder holds it back for reordering alone, or one that is
                    # shown later, to which it may refer.
                    self._keep(codec.decode(None), wanted, found)
                    if self._soundness.damaged:
                        for stamp in requested.keys() - wanted.keys():
                            del found[requested[stamp]]
                        wanted |= requested
                    return False
        except (av.FFmpegError, IndexError):  # IndexError: PyAV's, where a stream appears on the way
            return False  # the next rung says whether the file is broken or this way through it
        finally:
            packets.close()
        return not started and self.facts.container in STAMPED_BY_PES

    def _conceal_run(self, run: Run, found: dict[int, av.VideoFrame]) -> None:
        """Decode frames of one run from their own key frame, skipping none, whatever the decoder makes of them."""
        assert self.facts.ticks is not None
        if run.key < 0:
            return
        self._open()
        assert self._container is not None
        self._fresh = False
        pending = dict(zip(run.stamps, run.numbers, strict=True))
        key_stamp = int(self.facts.ticks.of_frames(self.facts.key_frames[run.key : run.key + 1].astype(np.int64))[0])
        packets, started = packets_of(self._container, self._stream), False
        try:
            self._container.seek(key_stamp, stream=self._stream)
            for packet in packets:
                started = started or (packet.pts == key_stamp and packet.is_keyframe)
                for frame in self._stream.codec_context.decode(packet) if started else ():
                    if frame.pts in pending:
                        found[pending.pop(frame.pts)] = frame
                if not pending:
                    break
        except (av.FFmpegError, IndexError):  # IndexError: PyAV's, where a stream appears on the way
            pass
        finally:
            packets.close()

    def _has_its_own_stamp(self, packet: "av.Packet[av.VideoStream]", place: int) -> bool:
        """Return whether a key frame, the `place`-th packet after a seek, carries the stamp that the file gave it."""
        if self.facts.container not in STAMPED_BY_PES:
            return True
        assert self.facts.ticks is not None
        known = packet.pts in self.facts.ticks.of_frames(self.facts.key_frames.astype(np.int64))
        return known and is_whole_frame(packet, place)

    def _keep(self, frames: list[av.VideoFrame], wanted: dict[int, int], found: dict[int, av.VideoFrame]) -> None:
        self.decoded += len(frames)
        for frame in frames:
            sound, stamp = self._soundness.after(frame), frame.pts
            if sound and stamp in wanted:
                found[wanted.pop(stamp)] = frame

    def _count(self, numbers: list[int], found: dict[int, av.VideoFrame], *, conceal: bool = False) -> None:
        """Decode the file from its start as if nothing were known of it, and count.

        Where stamps are known and did not lead to a frame, numbers may be those of another count: of packets, or of the
        file as it was. So the whole file is decoded, and must have as many frames as its facts. Raises DecodeError
        where it has not, and where a frame is damaged, if that is not to be concealed.
        """
        self._probed = True
        self._open()
        assert self._container is not None
        self._fresh = False
        missing, counted, count, reason = set(numbers), dict[int, av.VideoFrame](), 0, "the file ends"
        packets, log = packets_of(self._container, self._stream), DamageLog(self.facts.codec)
        try:
            for packet in packets:
                log.send(packet.pts)
                for frame in packet.decode():
                    log.take(frame)
                    if count in missing:
                        counted[count] = frame
                        missing.discard(count)
                    count += 1
                if not missing and self.facts.ticks is None:
                    break
        except (av.FFmpegError, OSError, IndexError) as error:
            reason = f"the file breaks ({getattr(error, 'strerror', None) or error})"
        finally:
            packets.close()
        other = count < self.facts.times.count if self.facts.error else count != self.facts.times.count
        if missing or (self.facts.ticks is not None and other):
            asked = ", ".join(map(str, sorted(numbers)[:8])) + (" ..." if len(numbers) > 8 else "")
            raise DecodeError(
                f"{self.path}: asked for frames {asked}, {reason} after {count} of {self.facts.times.count} frames; "
                "the file has changed or is damaged: scan it again, with verify='decode'"
            )
        hit = damaged_among(np.array(numbers), log.ranges())
        if hit.any() and not conceal:
            raise damage_error(self.path, int(np.array(numbers)[hit].min()))
        found.update(counted)
