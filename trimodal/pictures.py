"""Which stored pictures are the same, byte for byte: a number each."""

import hashlib

import numpy as np
import numpy.typing as npt

_ONE_COLOUR_LEVELS = 16  # of 255; fainter noise leaves no trace in a JPEG of quality 75 and more
SAYS_NOTHING = 0


def picture_fingerprint(jpeg: bytes, pixels: npt.NDArray[np.uint8]) -> int:
    """The first 8 bytes of the SHA-256 of a stored JPEG, as a signed number; 0 (``SAYS_NOTHING``)
    if its ``pixels``, (height, width, 3), are of one colour: no channel spans more than 16 levels.
    Black frames and fades are the same in videos that have nothing to do with each other.
    """
    span = pixels.max(axis=0).max(axis=0) - pixels.min(axis=0).min(axis=0)
    if span.max() <= _ONE_COLOUR_LEVELS:
        return SAYS_NOTHING
    return int.from_bytes(hashlib.sha256(jpeg).digest()[:8], "big", signed=True)
