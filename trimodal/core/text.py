"""Captions as input of the text network: tokens, vocabulary, ids (docs/method.md, Data)."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from importlib import resources
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from trimodal.core.files import read_table, write_table
from trimodal.core.fingerprint import sha256_of
from trimodal.core.records import DataError
from trimodal.core.schemas import VECTOR_DIM, VOCABULARY_SCHEMA, WORDS

PADDING_ID = 0
UNKNOWN_ID = 1
_SPECIAL = ("<padding>", "<unknown>")  # no token can be spelled like this


@cache
def stop_words() -> frozenset[str]:
    """NLTK's 179 English stop words, shipped as package data: NLTK itself would download them."""
    return frozenset(resources.files("trimodal.core").joinpath("stopwords.txt").read_text().split())


def tokenise(caption: str) -> list[str]:
    """Lower-case words of the letters a-z without stop words; not yet truncated to 16."""
    return [word for word in re.findall("[a-z]+", caption.lower()) if word not in stop_words()]


@dataclass(frozen=True)
class Vocabulary:
    """Words and their vectors, (rows, 300) float32; row 0 is padding, row 1 unknown, both zero."""

    words: tuple[str, ...]
    vectors: npt.NDArray[np.float32]

    def __post_init__(self) -> None:
        if self.words[:2] != _SPECIAL:
            raise DataError("a vocabulary's first two rows are padding and unknown")
        if self.vectors.shape != (len(self.words), VECTOR_DIM):
            raise DataError(f"a vocabulary's vectors are not {(len(self.words), VECTOR_DIM)}")

    @cached_property
    def _ids(self) -> dict[str, int]:
        return {word: row for row, word in enumerate(self.words)}

    @cached_property
    def fingerprint(self) -> str:
        """Identifies words, their order and their vectors."""
        return sha256_of("\n".join(self.words).encode(), self.vectors.tobytes())[:16]

    def __contains__(self, word: str) -> bool:
        """Whether a word has a vector."""
        return word in self._ids

    def token_ids(self, tokens: list[str]) -> npt.NDArray[np.int32]:
        """(16,) ids: unknown words are 1; truncated or padded with 0."""
        row = np.full(WORDS, PADDING_ID, np.int32)
        known = [self._ids.get(token, UNKNOWN_ID) for token in tokens[:WORDS]]
        row[: len(known)] = known
        return row


def build_vocabulary(
    counts: Mapping[str, int], vectors: Mapping[str, npt.NDArray[np.float32]]
) -> Vocabulary:
    """The words of the captions (``counts``) that have a vector, most frequent first, then
    alphabetical; followed by the other words of ``vectors`` that a caption can contain
    (:func:`tokenise`), alphabetical.
    """
    known = sorted((word for word in counts if word in vectors), key=lambda w: (-counts[w], w))
    known += sorted(word for word in vectors if word not in counts and tokenise(word) == [word])
    rows = [np.zeros(VECTOR_DIM, np.float32)] * 2 + [vectors[word] for word in known]
    return Vocabulary((*_SPECIAL, *known), np.stack(rows))


def write_vocabulary(path: Path, vocabulary: Vocabulary) -> None:
    """Writes ``vocabulary.parquet``: word, vector (fixed_size_list<float>[300])."""
    flat = pa.array(vocabulary.vectors.ravel(), pa.float32())
    write_table(
        path,
        pa.table(
            [
                pa.array(vocabulary.words, pa.string()),
                pa.FixedSizeListArray.from_arrays(flat, VECTOR_DIM),
            ],
            schema=VOCABULARY_SCHEMA,
        ),
    )


def read_vocabulary(path: Path) -> Vocabulary:
    """Reads what :func:`write_vocabulary` wrote; raises DataError for anything else."""
    table = read_table(path, VOCABULARY_SCHEMA, memory_map=True)
    vectors = table["vector"].combine_chunks().flatten().to_numpy().reshape(-1, VECTOR_DIM)
    words = tuple(table["word"].to_pylist())
    if words[:2] != _SPECIAL:
        raise DataError(f"{path}: does not start with {' and '.join(_SPECIAL)}")
    if len(set(words)) < len(words):
        raise DataError(f"{path}: contains a word twice")
    if not np.isfinite(vectors).all():
        raise DataError(f"{path}: contains a vector that is not finite")
    return Vocabulary(words, vectors)
