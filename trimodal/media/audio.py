"""Decodes the audio track of a clip to mono samples, in process and in bounded memory."""

from collections.abc import Iterator
from pathlib import Path
from typing import cast

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
    media_errors,
    open_media,
)
from trimodal.media.tracks import MOST_DAMAGED, audio_stream, packets_of, start_seconds

_DAMAGE_GAP_SECONDS = 0.01  # longer than the rounding of time stamps
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
    """The audio track at ``rate_hz``, mono, on the clip's clock, in blocks of a second or less;
    gaps become silence.
    """
    resampler: _Resampler | None = None
    produced, end_seconds = 0, 0.0  # samples so far; end of the last decoded frame
    for frame, after_damage in _frames(path, container, deadline):
        start_seconds = end_seconds if frame.time is None else frame.time
        # libswresample fills gaps of over 0.1 s, but holds all of one in memory.
        late = start_seconds > end_seconds + (_DAMAGE_GAP_SECONDS if after_damage else 1)
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


def _frames(
    path: Path, container: InputContainer, deadline: Deadline
) -> Iterator[tuple[av.AudioFrame, bool]]:
    """The decoded frames, and whether damage precedes each."""
    stream = audio_stream(path, container)
    stream.codec_context.thread_count = 1
    zero_seconds = start_seconds(container)
    zero: int | None = None  # in the frames' ticks
    packets, damaged, decoded, after_damage = 0, 0, False, False
    for packet in packets_of(path, container, stream):
        deadline.check()
        packets += bool(packet.size)
        try:
            frames = cast("list[av.AudioFrame]", packet.decode())
        except av.FFmpegError as error:  # a damaged packet becomes silence
            refuse_memory_shortage(error)
            damaged += 1
            after_damage = True
            continue
        decoded |= bool(frames)
        for frame in frames:
            if zero is None and frame.time_base is not None:
                zero = round(zero_seconds / frame.time_base)
            if zero and frame.pts is not None:
                frame.pts -= zero
            yield frame, after_damage
            after_damage = False
        after_damage |= packet.is_corrupt
    if damaged and not decoded:
        raise MediaError(path, "corrupt", "no packet of the audio could be decoded")
    if damaged > MOST_DAMAGED * packets:
        detail = f"{damaged} of {packets} packets of the audio are damaged"
        raise MediaError(path, "corrupt", detail)


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
