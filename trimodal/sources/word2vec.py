"""Word vectors in word2vec's binary format (GoogleNews-vectors-negative300.bin and its like)."""

from collections.abc import Collection
from pathlib import Path

import numpy as np
import numpy.typing as npt
from gensim.models import KeyedVectors

from trimodal.records import DataError


def read_vectors(
    path: Path, words: Collection[str], dimensions: int
) -> dict[str, npt.NDArray[np.float32]]:
    """The vectors, each (dimensions,), of those words that the file knows.

    Raises DataError for a file that is truncated, of another format or of another width.
    """
    try:
        known = KeyedVectors.load_word2vec_format(str(path), binary=True)
    except (EOFError, ValueError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: not a whole word2vec binary file: {error}") from error
    if known.vector_size != dimensions:
        raise DataError(f"{path}: vectors have {known.vector_size} dimensions, not {dimensions}")
    vectors = {word: known[word].astype(np.float32) for word in words if word in known}
    if bad := sorted(word for word, vector in vectors.items() if not np.isfinite(vector).all()):
        raise DataError(f"{path}: the vector of {bad[0]!r} is not finite")
    return vectors
