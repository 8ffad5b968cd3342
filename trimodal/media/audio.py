"""The sound track of a clip as mono samples, in process and in bounded memory."""

from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt
from av.container import InputContainer

from trimodal.media.container import (
    Deadline,
    DecodingLimits,
    LimitError,
    MediaError,
    errors_of,
    known_codec,
    open_media,
)

_LOUDEST = 1e4  # times full scale; beyond it, and far beyond any recording, a power overflows


def decode_audio(
    path: Path, rate_hz: int, limits: DecodingLimits
) -> Iterator[npt.NDArray[np.float32]]:
    """The whole sound track in blocks of mono samples in [-1, 1]; the first is that of second 0 of
    the video.

    A track that starts late is preceded by silence. Raises MediaError if there is none or if it
    cannot be decoded, LimitError if it is over a limit.
    """
    deadline = Deadline(path, "sound", limits)
    samples = 0
    with errors_of(path), open_media(path) as container:
        for block in _resampled(path, container, rate_hz, deadline):
            if not np.abs(block).max(initial=0.0) <= _LOUDEST:  # nor is a NaN
                raise MediaError(path, "corrupt", "its sound has samples that are not finite")
            samples += len(block)
            if samples > limits.clip_seconds * rate_hz:
                raise LimitError(path, "too_long", f"over {limits.clip_seconds:g} s of sound")
            yield block
    if not samples:
        raise MediaError(path, "no_audio", "its sound track is empty")


def _resampled(
    path: Path, container: InputContainer, rate_hz: int, deadline: Deadline
) -> Iterator[npt.NDArray[np.float32]]:
    """The first sound track at ``rate_hz``, mono, on the clip's clock, a second or less at a time;
    gaps become silence.
    """
    if not container.streams.audio:
        return
    resampler: _Resampler | None = None
    made, heard_seconds = 0, 0.0
    for frame in _frames(path, container, deadline):
        start_seconds = heard_seconds if frame.time is None else frame.time
        # libswresample fills any gap, but holds all of it in memory.
        late = start_seconds > heard_seconds + 1
        heard_seconds = start_seconds + frame.samples / frame.sample_rate
        if resampler is None or late or not resampler.takes(frame):
            if resampler is not None:
                for block in resampler.rest():
                    made += len(block)
                    yield block
            while late and made + rate_hz <= start_seconds * rate_hz:
                made += rate_hz
                yield np.zeros(rate_hz, np.float32)
            resampler = _Resampler(frame, rate_hz, made)
        for block in resampler.take(frame):
            made += len(block)
            yield block
    if resampler is not None:
        yield from resampler.rest()


def _frames(path: Path, container: InputContainer, deadline: Deadline) -> Iterator[av.AudioFrame]:
    stream = known_codec(path, container.streams.audio[0])
    stream.codec_context.thread_count = 1
    zero_seconds = (container.start_time or 0) / 1e6
    heard, damaged = False, False
    for packet in container.demux(stream):
        deadline.keep()
        if packet.is_corrupt:
            raise av.InvalidDataError(0, "its sound ends in the middle of a packet")
        try:
            frames = packet.decode()
        except av.FFmpegError:  # a damaged packet becomes silence
            damaged = True
            continue
        heard |= bool(frames)
        if zero_seconds:
            for frame in frames:
                if frame.pts is not None and frame.time_base is not None:
                    frame.pts -= round(zero_seconds / frame.time_base)
        yield from frames
    if damaged and not heard:
        raise MediaError(path, "corrupt", "not one packet of its sound could be decoded")


class _Resampler:
    """libswresample, set up for the first frame's format; it fills gaps, also one in front."""

    def __init__(self, frame: av.AudioFrame, rate_hz: int, first_sample: int) -> None:
        self._format = _sample_format(frame)
        self._second = frame.sample_rate
        self._taken = 0
        self._graph = av.filter.Graph()
        source = self._graph.add_abuffer(
            sample_rate=frame.sample_rate,
            format=frame.format.name,
            layout=frame.layout.name,
            time_base=frame.time_base,
        )
        first_pts = round(first_sample * frame.sample_rate / rate_hz)  # in samples that come in
        resample = f"{rate_hz}:async=1:first_pts={first_pts}:out_chlayout=mono:out_sample_fmt=flt"
        self._graph.link_nodes(
            source,
            self._graph.add("aresample", resample),
            self._graph.add("asetnsamples", f"{rate_hz}:pad=0"),
            self._graph.add("abuffersink"),
        ).configure()

    def takes(self, frame: av.AudioFrame) -> bool:
        """Whether the frame has the format that this was set up for."""
        return _sample_format(frame) == self._format

    def take(self, frame: av.AudioFrame) -> Iterator[npt.NDArray[np.float32]]:
        """Resamples a frame; yields what is ready, looking about once a second."""
        self._graph.push(frame)
        self._taken += frame.samples
        if self._taken >= self._second:
            self._taken = 0
            yield from self._ready()

    def rest(self) -> Iterator[npt.NDArray[np.float32]]:
        """What is left at the end."""
        self._graph.push(None)
        yield from self._ready()

    def _ready(self) -> Iterator[npt.NDArray[np.float32]]:
        while True:
            try:
                yield self._graph.pull().to_ndarray()[0]
            except (av.BlockingIOError, av.EOFError):
                return


def _sample_format(frame: av.AudioFrame) -> tuple[int, str, str]:
    return frame.sample_rate, frame.format.name, frame.layout.name
