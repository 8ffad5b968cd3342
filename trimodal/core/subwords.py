"""Vectors for words that have none, from their spelling: the sum of the vectors of a word's
character n-grams (Zhao et al., 2018, "Generalizing word embeddings using bag of subwords",
arXiv 1809.04259), which are fitted to the known words by ridge regression.

benchmarks/unknown_words.py compares this with FastText on held-out words.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import islice

import numpy as np
import numpy.typing as npt

from trimodal.core.extras import imports_of

_SHORTEST, _LONGEST = 3, 5  # characters of an n-gram
_MAX_WORDS = 50_000  # fitted to; a file of word vectors has the most frequent words first
_MAX_NGRAMS = 50_000  # the ones in most words: 60 MB
_RIDGE = 0.1


def ngrams(word: str) -> list[str]:
    """The distinct n-grams of 3 to 5 characters of ``<word>``, whose ends count as characters."""
    text = f"<{word}>"
    sizes = range(_SHORTEST, _LONGEST + 1)
    all_of_them = (text[i : i + size] for size in sizes for i in range(len(text) - size + 1))
    return list(dict.fromkeys(all_of_them))


@dataclass(frozen=True, kw_only=True)
class Subwords:
    """N-grams and their vectors, (ngrams, dim) float32."""

    ngrams: tuple[str, ...]
    vectors: npt.NDArray[np.float32]

    @cached_property
    def _rows(self) -> dict[str, int]:
        return {ngram: row for row, ngram in enumerate(self.ngrams)}

    def vector(self, word: str) -> npt.NDArray[np.float32] | None:
        """A word's vector, (dim,): the sum over its n-grams that are known, by the root of their
        number; None without any.
        """
        rows = [self._rows[ngram] for ngram in ngrams(word) if ngram in self._rows]
        if not rows:
            return None
        total: npt.NDArray[np.float32] = (
            self.vectors[rows].sum(axis=0) / np.float32(len(rows)) ** 0.5
        )
        return total


def fit_subwords(vectors: Mapping[str, npt.NDArray[np.float32]]) -> Subwords:
    """The n-gram vectors whose sums (:meth:`Subwords.vector`) are closest to the known vectors,
    (dim,) each, of the first 50,000 words.
    """
    with imports_of("pipeline"):
        from scipy.sparse import csr_array
        from sklearn.linear_model import Ridge

    known = dict(islice(vectors.items(), _MAX_WORDS))
    counts = Counter(ngram for word in known for ngram in ngrams(word))
    most = sorted(counts, key=lambda ngram: (-counts[ngram], ngram))[:_MAX_NGRAMS]
    row_of = {ngram: row for row, ngram in enumerate(most)}
    found = [[row_of[ngram] for ngram in ngrams(word) if ngram in row_of] for word in known]
    lengths = np.array([len(columns) for columns in found])
    bags = csr_array(
        (
            np.repeat(1 / np.sqrt(np.maximum(lengths, 1)), lengths),
            np.concatenate([np.array(columns, np.int64) for columns in found]),
            np.concatenate([[0], np.cumsum(lengths)]),
        ),
        shape=(len(found), len(most)),
    )
    ridge = Ridge(alpha=_RIDGE, fit_intercept=False, solver="sparse_cg")
    fitted = ridge.fit(bags, np.stack(list(known.values())).astype(np.float64))
    return Subwords(ngrams=tuple(most), vectors=np.ascontiguousarray(fitted.coef_.T, np.float32))
