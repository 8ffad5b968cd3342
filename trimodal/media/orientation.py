"""How a video's pictures are turned and mirrored for display.

A container states it once, as a matrix. H.264 states it in messages between the pictures, each of
which holds until the next (SEI message 47, display orientation; ITU-T H.264, annex D.2.27).
"""

import math
import re
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any, NamedTuple, TypeAlias, cast

import av
import numpy as np
import numpy.typing as npt
from av.bitstream import BitStreamFilterContext
from av.sidedata.sidedata import SideData, Type
from av.video.stream import VideoStream

Packet: TypeAlias = "av.Packet[Any]"
_SEI, _DISPLAY_ORIENTATION = 6, 47
_UNNAMED_SIDE_DATA = range(29, 64)  # kinds of FFmpeg's that PyAV 18 raises ValueError for


class Orientation(NamedTuple):
    """A picture's rows and columns are exchanged if ``transposed``, then mirrored left to right if
    ``mirrored`` and turned upside down if ``flipped``.
    """

    transposed: bool
    mirrored: bool
    flipped: bool

    def apply(self, pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        """The picture as displayed, of (height, width, 3) as stored."""
        if self.transposed:
            pixels = pixels.swapaxes(0, 1)
        if self.mirrored:
            pixels = pixels[:, ::-1]
        if self.flipped:
            pixels = pixels[::-1]
        return np.ascontiguousarray(pixels)


UPRIGHT = Orientation(transposed=False, mirrored=False, flipped=False)
Turn = tuple[int, Orientation]  # from a picture's stamp on


def _of_matrix(a: float, b: float, c: float, d: float) -> Orientation:
    """Of the matrix that moves pixel (x, y) to (ax + cy, bx + dy), to the nearest quarter turn."""
    if abs(a) + abs(d) >= abs(b) + abs(c):
        return Orientation(transposed=False, mirrored=a < 0, flipped=d < 0)
    return Orientation(transposed=True, mirrored=c < 0, flipped=b < 0)


def orientation_of(frame: av.VideoFrame) -> Orientation | None:
    """The orientation that the decoder notes on a picture, the container's if that states one."""
    try:
        side_data = frame.side_data
    except ValueError:
        side_data = _without_unnamed_side_data(frame).side_data
    for number in range(len(side_data)):
        data: SideData = side_data[number]  # type: ignore[literal-required]
        if data.type == Type.DISPLAYMATRIX:
            a, b, _, c, d = np.frombuffer(bytes(data), np.int32)[:5].tolist()
            return _of_matrix(a, b, c, d)
    return None


def _without_unnamed_side_data(frame: av.VideoFrame) -> av.VideoFrame:
    graph = av.filter.Graph()
    source = graph.add_buffer(
        width=frame.width, height=frame.height, format=frame.format, time_base=frame.time_base
    )
    removals = [graph.add("sidedata", f"mode=delete:type={kind}") for kind in _UNNAMED_SIDE_DATA]
    graph.link_nodes(source, *removals, graph.add("buffersink")).configure()
    graph.push(frame)
    return cast("av.VideoFrame", graph.pull())


def orientation_at(turns: Sequence[Turn], stamp: int) -> Orientation:
    """What the last message at or before a stamp says."""
    index = bisect_right(turns, stamp, key=lambda turn: turn[0])
    return turns[index - 1][1] if index else UPRIGHT


class OrientationMessages:
    """Collects the orientation messages of an H.264 stream from its packets."""

    def __init__(self, stream: VideoStream, zero: int) -> None:
        self._zero = zero
        self._turns: list[Turn] = []
        self._messages = None
        if stream.codec_context.name == "h264":
            chain = f"h264_mp4toannexb,filter_units=pass_types={_SEI}"
            self._messages = BitStreamFilterContext(chain, stream)

    def read(self, packet: Packet) -> None:
        """Reads one packet; it is empty afterwards."""
        stamp = packet.pts if packet.pts is not None else packet.dts
        if self._messages is None or stamp is None:
            return
        with suppress(av.FFmpegError):  # a damaged packet
            for part in self._messages.filter(packet):
                for orientation in _orientations(bytes(part)):
                    self._turns.append((stamp - self._zero, orientation))

    def in_order(self) -> Sequence[Turn]:
        """The messages in the order of display."""
        return sorted(self._turns, key=lambda turn: turn[0])


def _orientations(units: bytes) -> Iterator[Orientation]:
    """The display orientations in SEI units, each of which begins with 00 00 01 06."""
    for unit in re.split(rb"\x00\x00\x01", units)[1:]:
        payload = re.sub(rb"\x00\x00\x03", b"\x00\x00", unit[1:])  # emulation prevention
        position = 0
        while position + 2 < len(payload):  # the last byte is a stop bit
            kind, position = _number(payload, position)
            size, position = _number(payload, position)
            if kind == _DISPLAY_ORIENTATION:
                content = payload[position : position + min(size, 3)].ljust(3, b"\0")
                yield _of_message(int.from_bytes(content, "big"))
            position += size


def _number(payload: bytes, position: int) -> tuple[int, int]:
    """A number of an SEI message, the sum of its bytes up to the first that is not 255."""
    value = 0
    while position < len(payload):
        value += payload[position]
        position += 1
        if payload[position - 1] != 255:
            break
    return value, position


def _of_message(bits: int) -> Orientation:
    """Of a message's first 24 bits: cancel, horizontal flip, vertical flip, then 16 bits of turn
    against the clock.
    """
    cancel, mirrored, flipped = (bool(bits >> shift & 1) for shift in (23, 22, 21))
    if cancel:
        return UPRIGHT
    # Flips come first: turning them into flips after the turn reverses it once for each.
    angle = (bits >> 5 & 0xFFFF) / 65536 * math.tau
    if mirrored != flipped:
        angle = -angle
    horizontal, vertical = (-1 if flip else 1 for flip in (mirrored, flipped))
    cosine, sine = math.cos(angle), math.sin(angle)
    return _of_matrix(horizontal * cosine, -vertical * sine, horizontal * sine, vertical * cosine)
