"""One frame per second of a clip, in process and in bounded memory (docs/method.md, Data).

"Frame N" is the Nth of these; "picture" is any decoded picture of the video stream, H.264's word.
The container's time stamps settle which pictures become frames. Of the others, those that are not a
reference for any picture are not decoded. The frames are exactly those of a full decode.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt
from av.container import InputContainer
from av.video.reformatter import Interpolation, VideoReformatter
from av.video.stream import VideoStream

from trimodal.core.machine_errors import refuse_memory_shortage
from trimodal.core.timing import frame_centre_seconds, frame_count
from trimodal.media.container import (
    Deadline,
    DecodingLimits,
    LimitError,
    MediaError,
    media_errors,
    open_media,
    video_stream,
)

# Codecs whose "not a reference picture" flag holds for all other pictures. HEVC's holds only within
# a temporal layer; the VP9 and AV1 decoders ignore theirs.
_NONREF_CODECS = frozenset({"h264"})


def decode_frames(
    path: Path, height: int, width: int, limits: DecodingLimits
) -> Iterator[npt.NDArray[np.uint8]]:
    """One frame per second, each (height, width, 3) uint8 RGB; the aspect ratio is not kept.

    Frame N (from 1) is the picture on screen at second N - 0.5: the last one at or before it.
    Raises MediaError for a file that cannot be decoded, LimitError for one that exceeds a limit.
    """
    scaler = VideoReformatter()
    deadline = Deadline(path, "frames", limits)
    with media_errors(path):
        times = _picture_times(path, limits)
        for frame in _selected_pictures(path, times, limits, deadline):
            yield _scaled(scaler, frame, height, width)


@dataclass(frozen=True, kw_only=True)
class _PictureTimes:
    """A stream's time stamps, in ticks. ``selected`` holds the stamp of each frame's picture,
    counted from stamp ``zero``; it is empty where the packets' stamps do not settle them.
    """

    zero: int
    seconds_per_tick: float
    frames: int
    selected: tuple[int, ...]
    skippable: bool


def _picture_times(path: Path, limits: DecodingLimits) -> _PictureTimes:
    """Reads the packets' time stamps; nothing is decoded."""
    with open_media(path) as container:
        stream = _video_stream(path, container, limits)
        tick = float(stream.time_base or 1)
        zero = round((container.start_time or 0) / 1e6 / tick)
        stamps, end, settled = [], 0, True
        for packet in container.demux():  # all streams: a truncated file may end in any
            if packet.is_corrupt:
                raise MediaError(path, "corrupt", "it ends in the middle of a packet")
            if packet.stream_index != stream.index or not packet.size or packet.is_discard:
                continue
            if packet.pts is None:
                settled = False
                continue
            stamps.append(packet.pts - zero)
            end = max(end, packet.pts - zero + (packet.duration or 0))
        codec = stream.codec_context.name
    stamps.sort()
    if settled and stamps and end == stamps[-1]:
        end += stamps[-1] - stamps[-2] if len(stamps) > 1 else round(1 / tick)
    frames = frame_count(end * tick)
    if frames > limits.clip_seconds:
        raise LimitError(path, "too_long", f"over {limits.clip_seconds:g} s of video")
    settled &= all(first < second for first, second in pairwise(stamps))
    selected: tuple[int, ...] = ()
    if settled and stamps:
        centres = [frame_centre_seconds(number + 1) / tick for number in range(frames)]
        last = np.searchsorted(np.array(stamps), np.array(centres) + 1e-6, side="right") - 1
        selected = tuple(stamps[max(0, index)] for index in last)
    return _PictureTimes(
        zero=zero,
        seconds_per_tick=tick,
        frames=frames,
        selected=selected,
        skippable=codec in _NONREF_CODECS,
    )


def _video_stream(path: Path, container: InputContainer, limits: DecodingLimits) -> VideoStream:
    stream = video_stream(path, container)
    if not stream.time_base:
        raise MediaError(path, "corrupt", "states no time base")
    if stream.codec_context.width * stream.codec_context.height > limits.frame_pixels:
        size = f"{stream.codec_context.width} x {stream.codec_context.height}"
        raise LimitError(path, "too_large", f"{size} is over {limits.frame_pixels:,} pixels")
    return stream


def _selected_pictures(
    path: Path, times: _PictureTimes, limits: DecodingLimits, deadline: Deadline
) -> Iterator[av.VideoFrame]:
    """The frames' pictures; a full decode provides those that skipping could not."""
    yielded = 0
    if times.skippable and times.selected:
        for frame in _skipping_decode(path, times, limits, deadline):
            yield frame
            yielded += 1
    if yielded < times.frames or not times.selected:
        for number, frame in enumerate(_full_decode(path, times, limits, deadline)):
            if number >= yielded:
                yield frame
                yielded += 1
    if not yielded:
        raise MediaError(path, "corrupt", "no frame of it could be decoded")


def _skipping_decode(
    path: Path, times: _PictureTimes, limits: DecodingLimits, deadline: Deadline
) -> Iterator[av.VideoFrame]:
    """The selected pictures, decoding no other non-reference picture. Stops early where the stream
    is damaged or does not match its time stamps.
    """
    selected, index = set(times.selected), 0
    with open_media(path) as container:
        stream = _decoding_stream(path, container, limits)
        context, skipping = stream.codec_context, False
        # How a damaged picture is concealed depends on those before it, skipped ones included.
        context.options = context.options | {"err_detect": "explode"}
        for packet in container.demux(stream):
            deadline.check()
            if skipping == (packet.pts is None or packet.pts - times.zero in selected):
                skipping = not skipping
                context.skip_frame = "NONREF" if skipping else "DEFAULT"
            try:
                frames = packet.decode()
            except av.FFmpegError as error:
                refuse_memory_shortage(error)
                return
            for frame in frames:
                # One field of an interlaced picture may be a reference and the other not.
                if frame.pts is None or frame.interlaced_frame or frame.is_corrupt:
                    return
                if frame.pts - times.zero > times.selected[index]:
                    return
                while frame.pts - times.zero == times.selected[index]:
                    yield frame
                    index += 1
                    if index == len(times.selected):
                        return


def _full_decode(
    path: Path, times: _PictureTimes, limits: DecodingLimits, deadline: Deadline
) -> Iterator[av.VideoFrame]:
    """Decodes every picture and yields for each second N - 0.5 the last one at or before it."""
    tick_seconds = times.seconds_per_tick
    latest: av.VideoFrame | None = None
    number, end = 1, 0.0
    with open_media(path) as container:
        for frame in _all_pictures(container, _decoding_stream(path, container, limits)):
            deadline.check()
            stamp = frame.pts if frame.pts is not None else frame.dts
            start = (stamp - times.zero) * tick_seconds if stamp is not None else end
            while latest is not None and start > frame_centre_seconds(number) + 1e-6 * tick_seconds:
                yield latest
                number += 1
            latest = frame
            end = start + (frame.duration or 0) * tick_seconds
            if number > limits.clip_seconds:
                raise LimitError(path, "too_long", f"over {limits.clip_seconds:g} s of video")
    count = times.frames if times.selected else frame_count(end)
    while latest is not None and number <= count:
        yield latest
        number += 1


def _all_pictures(container: InputContainer, stream: VideoStream) -> Iterator[av.VideoFrame]:
    for packet in container.demux(stream):
        try:
            yield from packet.decode()
        except av.FFmpegError as error:  # a damaged picture; the previous one stays on screen
            refuse_memory_shortage(error)


def _decoding_stream(path: Path, container: InputContainer, limits: DecodingLimits) -> VideoStream:
    """The video stream, on one thread (the workers are parallel), with bounded picture size."""
    stream = _video_stream(path, container, limits)
    stream.codec_context.thread_count = 1
    # Pictures may grow within a stream; libavcodec counts their row padding, too.
    stream.codec_context.options = {"max_pixels": str(2 * limits.frame_pixels)}
    return stream


def _scaled(
    scaler: VideoReformatter, frame: av.VideoFrame, height: int, width: int
) -> npt.NDArray[np.uint8]:
    """A picture as displayed: (height, width, 3) uint8, rotated upright where the file says so."""
    turns = round(frame.rotation / 90) % 4
    if turns % 2:
        height, width = width, height
    small = scaler.reformat(
        frame, width, height, "rgb24", interpolation=Interpolation.BICUBIC, threads=1
    )
    pixels = small.to_ndarray().astype(np.uint8, copy=False)
    return np.ascontiguousarray(np.rot90(pixels, turns)) if turns else pixels
