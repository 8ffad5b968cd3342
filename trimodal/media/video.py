"""One picture a second of a clip, in process and in bounded memory (docs/method.md, Data).

Not every picture needs to be decoded for it. Which ones are wanted follows from the time stamps,
which lie in the container; of the others, those that no picture refers to are skipped. So the
pictures are exactly those of a full decode.
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

from trimodal.core.timing import frame_centre_seconds, frame_count
from trimodal.media.container import (
    Deadline,
    DecodingLimits,
    LimitError,
    MediaError,
    errors_of,
    open_media,
    video_stream,
)

# Codecs whose mark "no picture refers to this one" binds all others. HEVC's binds pictures of the
# same temporal layer alone; VP9's and AV1's decoders do not look at theirs.
_MARKING_CODECS = frozenset({"h264"})


def decode_frames(
    path: Path, height: int, width: int, limits: DecodingLimits
) -> Iterator[npt.NDArray[np.uint8]]:
    """One frame a second, each (height, width, 3) RGB; the aspect ratio is not kept.

    Frame N (from 1) is the picture on screen at second N - 0.5: the last one at or before it.
    Raises MediaError for a file that cannot be decoded, LimitError for one over a limit.
    """
    scaler = VideoReformatter()
    deadline = Deadline(path, "pictures", limits)
    with errors_of(path):
        times = _picture_times(path, limits)
        for frame in _wanted_frames(path, times, limits, deadline):
            yield _scaled(scaler, frame, height, width)


@dataclass(frozen=True, kw_only=True)
class _PictureTimes:
    """A stream's pictures on the clip's clock. ``wanted`` holds the stamp of each one-per-second
    frame's picture; it is empty where the packets' stamps do not settle them.
    """

    zero: int
    seconds_per_tick: float
    frames: int
    wanted: tuple[int, ...]
    skippable: bool


def _picture_times(path: Path, limits: DecodingLimits) -> _PictureTimes:
    """Reads the packets' stamps; nothing is decoded."""
    with open_media(path) as container:
        stream = _video_stream(path, container, limits)
        tick = float(stream.time_base or 1)
        zero = round((container.start_time or 0) / 1e6 / tick)
        stamps, end, settled = [], 0, True
        for packet in container.demux():  # all streams: a file that is cut ends in one of them
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
        raise LimitError(path, "too_long", f"over {limits.clip_seconds:g} s of pictures")
    settled &= all(first < second for first, second in pairwise(stamps))
    wanted: tuple[int, ...] = ()
    if settled and stamps:
        centres = [frame_centre_seconds(number + 1) / tick for number in range(frames)]
        last = np.searchsorted(np.array(stamps), np.array(centres) + 1e-6, side="right") - 1
        wanted = tuple(stamps[max(0, place)] for place in last)
    return _PictureTimes(
        zero=zero,
        seconds_per_tick=tick,
        frames=frames,
        wanted=wanted,
        skippable=codec in _MARKING_CODECS,
    )


def _video_stream(path: Path, container: InputContainer, limits: DecodingLimits) -> VideoStream:
    stream = video_stream(path, container)
    if not stream.time_base:
        raise MediaError(path, "corrupt", "states no time base")
    if stream.codec_context.width * stream.codec_context.height > limits.frame_pixels:
        size = f"{stream.codec_context.width} x {stream.codec_context.height}"
        raise LimitError(path, "too_large", f"{size} are over {limits.frame_pixels:,} pixels")
    return stream


def _wanted_frames(
    path: Path, times: _PictureTimes, limits: DecodingLimits, deadline: Deadline
) -> Iterator[av.VideoFrame]:
    """The one-per-second frames' pictures; a full decode provides what skipping could not."""
    shown = 0
    if times.skippable and times.wanted:
        for frame in _skipping_decode(path, times, limits, deadline):
            yield frame
            shown += 1
    if shown < times.frames or not times.wanted:
        for number, frame in enumerate(_full_decode(path, times, limits, deadline)):
            if number >= shown:
                yield frame
                shown += 1
    if not shown:
        raise MediaError(path, "corrupt", "not one picture of it could be decoded")


def _skipping_decode(
    path: Path, times: _PictureTimes, limits: DecodingLimits, deadline: Deadline
) -> Iterator[av.VideoFrame]:
    """The wanted pictures, as far as all is as the stamps promise: of the pictures that no other
    refers to only the wanted ones are decoded.
    """
    wanted, place = set(times.wanted), 0
    with open_media(path) as container:
        stream = _decoding_stream(path, container, limits)
        context, skipping = stream.codec_context, False
        # How a damaged picture is mended depends on those before it, skipped ones included.
        context.options = context.options | {"err_detect": "explode"}
        for packet in container.demux(stream):
            deadline.keep()
            if skipping == (packet.pts is None or packet.pts - times.zero in wanted):
                skipping = not skipping
                context.skip_frame = "NONREF" if skipping else "DEFAULT"
            try:
                frames = packet.decode()
            except av.FFmpegError:
                return
            for frame in frames:
                # Of an interlaced picture one field may be referred to and the other not.
                if frame.pts is None or frame.interlaced_frame or frame.is_corrupt:
                    return
                if frame.pts - times.zero > times.wanted[place]:
                    return
                while frame.pts - times.zero == times.wanted[place]:
                    yield frame
                    place += 1
                    if place == len(times.wanted):
                        return


def _full_decode(
    path: Path, times: _PictureTimes, limits: DecodingLimits, deadline: Deadline
) -> Iterator[av.VideoFrame]:
    """Decodes every picture and yields for each second N - 0.5 the last one at or before it."""
    second = times.seconds_per_tick
    latest: av.VideoFrame | None = None
    number, end = 1, 0.0
    with open_media(path) as container:
        for frame in _every_frame(container, _decoding_stream(path, container, limits)):
            deadline.keep()
            stamp = frame.pts if frame.pts is not None else frame.dts
            start = (stamp - times.zero) * second if stamp is not None else end
            while latest is not None and start > frame_centre_seconds(number) + 1e-6 * second:
                yield latest
                number += 1
            latest = frame
            end = start + (frame.duration or 0) * second
            if number > limits.clip_seconds:
                raise LimitError(path, "too_long", f"over {limits.clip_seconds:g} s of pictures")
    count = times.frames if times.wanted else frame_count(end)
    while latest is not None and number <= count:
        yield latest
        number += 1


def _every_frame(container: InputContainer, stream: VideoStream) -> Iterator[av.VideoFrame]:
    for packet in container.demux(stream):
        try:
            yield from packet.decode()
        except av.FFmpegError:  # a damaged picture; the one before stays on screen
            continue


def _decoding_stream(path: Path, container: InputContainer, limits: DecodingLimits) -> VideoStream:
    """The video stream, on one thread (the workers are the parallelism), pictures bounded."""
    stream = _video_stream(path, container, limits)
    stream.codec_context.thread_count = 1
    # Pictures may grow on the way; libavcodec counts in the padding of their rows.
    stream.codec_context.options = {"max_pixels": str(2 * limits.frame_pixels)}
    return stream


def _scaled(
    scaler: VideoReformatter, frame: av.VideoFrame, height: int, width: int
) -> npt.NDArray[np.uint8]:
    """A picture as it is shown, turned upright where the camera was held on its side."""
    turns = round(frame.rotation / 90) % 4
    if turns % 2:
        height, width = width, height
    small = scaler.reformat(
        frame, width, height, "rgb24", interpolation=Interpolation.BICUBIC, threads=1
    )
    pixels = small.to_ndarray().astype(np.uint8, copy=False)
    return np.ascontiguousarray(np.rot90(pixels, turns)) if turns else pixels
