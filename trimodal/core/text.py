"""Captions as input of the text network: tokens, vocabulary, ids (docs/method.md, Data)."""

import json
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from trimodal.core.files import read_table, write_table
from trimodal.core.fingerprint import sha256_of
from trimodal.core.records import DataError
from trimodal.core.schemas import VECTOR_DIM, VOCABULARY_SCHEMA, WORDS
from trimodal.core.subwords import Subwords

PADDING_ID = 0
UNKNOWN_ID = 1
ENGLISH = "english"
_SPECIAL = ("<padding>", "<unknown>")  # no token can be spelled like this
_WORD, _SPELLING, _NGRAM = "word", "spelling", "ngram"  # kinds of rows of a vocabulary's file
_METADATA = "tokeniser"


@dataclass(frozen=True, kw_only=True)
class Tokeniser:
    """How sentences of a language are split into words, without ``stop_words``. It is stored with
    the vocabulary, so that queries are split as the captions were, whatever lists NLTK has by then
    (trimodal.core.language reads them).
    """

    language: str
    stop_words: frozenset[str]

    @property
    def pattern(self) -> str:
        """Matches a word: in English letters a-z (the paper's), else letters of any script with
        their accents, vowel signs and joiners.
        """
        return "[a-z]+" if self.language == ENGLISH else r"\p{L}[\p{L}\p{M}\u200c\u200d]*"

    def words(self, sentence: str) -> list[str]:
        """Lower-case words without stop words; not yet truncated to 16."""
        return self._words(sentence)

    @cached_property
    def _words(self) -> Callable[[str], list[str]]:
        import regex  # what NLTK's RegexpTokenizer splits with; `re` breaks Hindi at vowel signs

        return self.with_split(regex.compile(self.pattern).findall)

    def with_split(self, split: Callable[[str], list[str]]) -> Callable[[str], list[str]]:
        """:meth:`words` with another function that finds the words of the pattern."""
        stop_words = frozenset(map(self._normalised, self.stop_words))

        def words(sentence: str) -> list[str]:
            found = split(self._normalised(sentence))
            return [word for word in found if word not in stop_words]

        return words

    def _normalised(self, text: str) -> str:
        """Lower case, accents as one character; English has always been without the latter."""
        lower = text.lower()
        return lower if self.language == ENGLISH else unicodedata.normalize("NFC", lower)


@dataclass(frozen=True)
class Vocabulary:
    """Words and their vectors, (rows, 300) float32; row 0 is padding, row 1 unknown, both zero.
    Words of captions that have no vector may have one from their spelling (``spelled``); with
    ``subwords`` so may words that have no row.
    """

    words: tuple[str, ...]
    vectors: npt.NDArray[np.float32]
    tokeniser: Tokeniser
    spelled: frozenset[str] = frozenset()
    subwords: Subwords | None = None

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
        """Identifies everything: words, their order and vectors, the tokeniser, the n-grams."""
        parts = ["\n".join(self.words).encode(), self.vectors.tobytes()]
        parts += [json.dumps([_settings(self.tokeniser), sorted(self.spelled)]).encode()]
        if self.subwords:
            parts += ["\n".join(self.subwords.ngrams).encode(), self.subwords.vectors.tobytes()]
        return sha256_of(*parts)[:16]

    def __contains__(self, word: str) -> bool:
        """Whether a word has a row."""
        return word in self._ids

    def token_ids(self, tokens: list[str]) -> npt.NDArray[np.int32]:
        """(16,) ids: words without a row are 1; truncated or padded with 0."""
        row = np.full(WORDS, PADDING_ID, np.int32)
        known = [self._ids.get(token, UNKNOWN_ID) for token in tokens[:WORDS]]
        row[: len(known)] = known
        return row

    def spelling(self, word: str) -> npt.NDArray[np.float32] | None:
        """The vector, (300,), of a word that has no row, from its n-grams; None without any."""
        return self.subwords.vector(word) if self.subwords else None

    def encode(
        self, sentences: Sequence[list[str]]
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
        """The text network's inputs for sentences given as tokens: ids, (sentences, 16), and the
        vectors, (further, 300), of words without a row that have one from their spelling: their
        ids are the table's length and up.
        """
        ids = np.full((len(sentences), WORDS), PADDING_ID, np.int64)
        further: dict[str, int] = {}
        vectors: list[npt.NDArray[np.float32]] = []
        for row, tokens in zip(ids, sentences, strict=True):
            row[:] = self.token_ids(tokens)
            for position in np.flatnonzero(row == UNKNOWN_ID):
                word = tokens[position]
                if word not in further and (vector := self.spelling(word)) is not None:
                    further[word] = len(self.words) + len(vectors)
                    vectors.append(vector)
                row[position] = further.get(word, UNKNOWN_ID)
        return ids, np.stack(vectors) if vectors else np.empty((0, VECTOR_DIM), np.float32)


def build_vocabulary(
    counts: Mapping[str, int],
    vectors: Mapping[str, npt.NDArray[np.float32]],
    tokeniser: Tokeniser,
    *,
    spelled: frozenset[str] = frozenset(),
    subwords: Subwords | None = None,
) -> Vocabulary:
    """The words of the captions (``counts``) that have a vector, most frequent first, then
    alphabetical; followed by the other words of ``vectors`` that a caption can contain
    (:meth:`Tokeniser.words`), alphabetical.
    """
    known = sorted((word for word in counts if word in vectors), key=lambda w: (-counts[w], w))
    known += sorted(w for w in vectors if w not in counts and tokeniser.words(w) == [w])
    rows = [np.zeros(VECTOR_DIM, np.float32)] * 2 + [vectors[word] for word in known]
    return Vocabulary((*_SPECIAL, *known), np.stack(rows), tokeniser, spelled, subwords)


def _settings(tokeniser: Tokeniser) -> dict[str, Any]:
    return {"language": tokeniser.language, "stop_words": sorted(tokeniser.stop_words)}


def write_vocabulary(path: Path, vocabulary: Vocabulary) -> None:
    """Writes ``vocabulary.parquet``: word, kind, vector (fixed_size_list<float>[300]). Words, with
    a vector of their own (``word``) or from their ``spelling``, come first and in the order of
    their ids, then the n-grams (``ngram``), if there are any. The file's metadata has the tokeniser
    as JSON: language and stop words.
    """
    subwords = vocabulary.subwords
    ngrams = subwords.ngrams if subwords else ()
    tables = [vocabulary.vectors, *([subwords.vectors] if subwords else [])]
    kinds = [_SPELLING if word in vocabulary.spelled else _WORD for word in vocabulary.words]
    metadata = {_METADATA: json.dumps(_settings(vocabulary.tokeniser), ensure_ascii=False)}
    write_table(
        path,
        pa.table(
            [
                pa.array((*vocabulary.words, *ngrams), pa.string()),
                pa.array([*kinds, *[_NGRAM] * len(ngrams)], pa.string()),
                pa.FixedSizeListArray.from_arrays(
                    pa.array(np.concatenate(tables).ravel(), pa.float32()), VECTOR_DIM
                ),
            ],
            schema=VOCABULARY_SCHEMA.with_metadata(metadata),
        ),
    )


def read_vocabulary(path: Path) -> Vocabulary:
    """Reads what :func:`write_vocabulary` wrote; raises DataError for anything else."""
    table = read_table(path, VOCABULARY_SCHEMA, memory_map=True)
    vectors = table["vector"].combine_chunks().flatten().to_numpy().reshape(-1, VECTOR_DIM)
    names, kinds = table["word"].to_pylist(), table["kind"].to_pylist()
    count = kinds.index(_NGRAM) if _NGRAM in kinds else len(kinds)
    words, ngrams = tuple(names[:count]), tuple(names[count:])
    if words[:2] != _SPECIAL:
        raise DataError(f"{path}: does not start with {' and '.join(_SPECIAL)}")
    if not {*kinds[:count]} <= {_WORD, _SPELLING} or {*kinds[count:]} - {_NGRAM}:
        raise DataError(f"{path}: its kinds are not words followed by n-grams")
    if len(set(words)) < len(words) or len(set(ngrams)) < len(ngrams):
        raise DataError(f"{path}: contains a word twice")
    if not np.isfinite(vectors).all():
        raise DataError(f"{path}: contains a vector that is not finite")
    return Vocabulary(
        words,
        vectors[:count],
        _tokeniser(path, (table.schema.metadata or {}).get(_METADATA.encode(), b"")),
        frozenset(word for word, kind in zip(words, kinds, strict=False) if kind == _SPELLING),
        Subwords(ngrams=ngrams, vectors=vectors[count:]) if ngrams else None,
    )


def _tokeniser(path: Path, settings: bytes) -> Tokeniser:
    try:
        match json.loads(settings):
            case {"language": str(language), "stop_words": [*words]} if all(
                isinstance(word, str) for word in words
            ):
                return Tokeniser(language=language, stop_words=frozenset(words))
    except (ValueError, RecursionError):
        pass
    raise DataError(
        f"{path}: does not say its language and stop words; run the captions stage again"
    )
