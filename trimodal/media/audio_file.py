"""Encodes samples as a small file that every browser plays."""

import io

import av
import numpy as np
import numpy.typing as npt

_BIT_RATE = 32_000


def aac_file(samples: npt.NDArray[np.float32], rate_hz: int) -> bytes:
    """An MP4 of mono audio, AAC at 32 kbit/s, from (samples,) in [-1, 1]; the same bytes for the
    same samples.
    """
    content = io.BytesIO()
    with av.open(content, "w", format="mp4", options={"fflags": "+bitexact"}) as container:
        stream = container.add_stream("aac", rate=rate_hz, options={"flags": "+bitexact"})
        stream.bit_rate, stream.layout = _BIT_RATE, "mono"
        frame = av.AudioFrame.from_ndarray(samples[None], format="fltp", layout="mono")
        frame.sample_rate, frame.pts = rate_hz, 0
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return content.getvalue()
