"""Decodes the audio track of a clip to mono samples, in process and in bounded memory."""

from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt
from av.container import InputContainer

from trimodal.core.machine_errors import refuse_memory_shortage
from trimodal.media.container import (
    Deadline,
    DecodingLimits,
    LimitError,
    MediaError,
    check_codec,
    media_errors,
    open_media,
)

_MAX_AMPLITUDE = 1e4  # of full scale: above any recording, and below where a power overflows


def decode_audio(
    path: Path, rate_hz: int, limits: DecodingLimits
) -> Iterator[npt.NDArray[np.float32]]:
    """The whole audio track in blocks of mono samples, (samples,) float32 in [-1, 1], from second 0
    of the video on.

    A track that starts late is preceded by silence. Raises MediaError if there is no audio or it
    cannot be decoded, LimitError if it exceeds a limit.
    """
    deadline = Deadline(path, "audio", limits)
    samples = 0
    with media_errors(path), open_media(path) as container:
        for block in _resampled(path, container, rate_hz, deadline):
            if not np.abs(block).max(initial=0.0) <= _MAX_AMPLITUDE:  # also refuses NaN
                raise MediaError(path, "corrupt", "the audio has samples that are not finite")
            samples += len(block)
            if samples > limits.clip_seconds * rate_hz:
                raise LimitError(path, "too_long", f"over {limits.clip_seconds:g} s of audio")
            yield block
    if not samples:
        raise MediaError(path, "no_audio", "the audio track is empty")


def _resampled(
    path: Path, container: InputContainer, rate_hz: int, deadline: Deadline
) -> Iterator[npt.NDArray[np.float32]]:
    """The first audio track at ``rate_hz``, mono, on the clip's clock, in blocks of a second or
    less; gaps become silence.
    """
    if not container.streams.audio:
        return
    resampler: _Resampler | None = None
    produced, end_seconds = 0, 0.0  # samples so far; end of the last decoded frame
    for frame in _frames(path, container, deadline):
        start_seconds = end_seconds if frame.time is None else frame.time
        # libswresample fills any gap, but holds all of it in memory.
        late = start_seconds > end_seconds + 1
        end_seconds = start_seconds + frame.samples / frame.sample_rate
        if resampler is None or late or not resampler.accepts(frame):
            if resampler is not None:
                for block in resampler.flush():
                    produced += len(block)
                    yield block
            while late and produced + rate_hz <= start_seconds * rate_hz:
                produced += rate_hz
                yield np.zeros(rate_hz, np.float32)
            resampler = _Resampler(frame, rate_hz, produced)
        for block in resampler.push(frame):
            produced += len(block)
            yield block
    if resampler is not None:
        yield from resampler.flush()


def _frames(path: Path, container: InputContainer, deadline: Deadline) -> Iterator[av.AudioFrame]:
    stream = check_codec(path, container.streams.audio[0])
    stream.codec_context.thread_count = 1
    zero_seconds = (container.start_time or 0) / 1e6
    decoded, damaged = False, False
    for packet in container.demux(stream):
        deadline.check()
        if packet.is_corrupt:
            raise av.InvalidDataError(0, "the audio ends in the middle of a packet")
        try:
            frames = packet.decode()
        except av.FFmpegError as error:  # a damaged packet becomes silence
            refuse_memory_shortage(error)
            damaged = True
            continue
        decoded |= bool(frames)
        if zero_seconds:
            for frame in frames:
                if frame.pts is not None and frame.time_base is not None:
                    frame.pts -= round(zero_seconds / frame.time_base)
        yield from frames
    if damaged and not decoded:
        raise MediaError(path, "corrupt", "no packet of the audio could be decoded")


class _Resampler:
    """libswresample, set up for the first frame's format; it fills gaps, also one at the start."""

    def __init__(self, frame: av.AudioFrame, rate_hz: int, first_sample: int) -> None:
        self._format = _sample_format(frame)
        self._samples_per_second = frame.sample_rate
        self._pending = 0
        self._graph = av.filter.Graph()
        source = self._graph.add_abuffer(
            sample_rate=frame.sample_rate,
            format=frame.format.name,
            layout=frame.layout.name,
            time_base=frame.time_base,
        )
        first_pts = round(first_sample * frame.sample_rate / rate_hz)  # in input samples
        resample = f"{rate_hz}:async=1:first_pts={first_pts}:out_chlayout=mono:out_sample_fmt=flt"
        self._graph.link_nodes(
            source,
            self._graph.add("aresample", resample),
            self._graph.add("asetnsamples", f"{rate_hz}:pad=0"),
            self._graph.add("abuffersink"),
        ).configure()

    def accepts(self, frame: av.AudioFrame) -> bool:
        """Whether the frame has the format this was set up for."""
        return _sample_format(frame) == self._format

    def push(self, frame: av.AudioFrame) -> Iterator[npt.NDArray[np.float32]]:
        """Resamples a frame; about once per second of audio, yields the blocks that are ready."""
        self._graph.push(frame)
        self._pending += frame.samples
        if self._pending >= self._samples_per_second:
            self._pending = 0
            yield from self._ready()

    def flush(self) -> Iterator[npt.NDArray[np.float32]]:
        """The remaining blocks at the end of the track."""
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
