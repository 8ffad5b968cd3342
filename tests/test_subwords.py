"""Vectors from the spelling: n-grams, the fit against its closed form, real words held out."""

import numpy as np
import numpy.typing as npt
import pytest
from data_fixtures import REAL, needs_real_data
from hypothesis import given
from hypothesis import strategies as st

from trimodal.core import subwords
from trimodal.core.subwords import Subwords, fit_subwords, ngrams
from trimodal.sources.word2vec import read_vectors

Vectors = dict[str, npt.NDArray[np.float32]]
WORDS = ["drum", "drums", "drummer", "dog", "dogs", "house", "houses", "a"]


@pytest.fixture(scope="module")
def vectors() -> Vectors:
    rng = np.random.default_rng(0)
    return {word: rng.standard_normal(5).astype(np.float32) for word in WORDS}


@pytest.fixture(scope="module")
def fitted(vectors: Vectors) -> Subwords:
    return fit_subwords(vectors)


def test_ngrams_have_three_to_five_characters_with_the_ends() -> None:
    assert ngrams("dog") == ["<do", "dog", "og>", "<dog", "dog>", "<dog>"]
    assert ngrams("a") == ["<a>"]
    assert ngrams("") == []
    assert ngrams("aaaa") == ["<aa", "aaa", "aa>", "<aaa", "aaaa", "aaa>", "<aaaa", "aaaa>"]
    assert ngrams("हिन्दी")[:2] == ["<हि", "हिन"]


@given(st.text(max_size=12))
def test_ngrams_are_all_pieces(word: str) -> None:
    text = f"<{word}>"
    pieces = {text[i:j] for i in range(len(text)) for j in range(i + 3, min(i + 5, len(text)) + 1)}
    assert set(ngrams(word)) == pieces
    assert len(ngrams(word)) == len(pieces)


def test_a_words_vector_is_the_sum_of_its_known_ngrams(fitted: Subwords) -> None:
    rows = [fitted.ngrams.index(n) for n in ngrams("drumming") if n in fitted.ngrams]
    assert 0 < len(rows) < len(ngrams("drumming"))
    vector = fitted.vector("drumming")
    assert vector is not None
    assert vector.dtype == np.float32
    expected = sum(fitted.vectors[row] for row in rows) / np.sqrt(len(rows))
    np.testing.assert_allclose(vector, expected, rtol=1e-5)
    assert fitted.vector("xyz") is None
    assert fitted.vector("") is None


def test_the_fit_is_that_of_ridge_regression(vectors: Vectors, fitted: Subwords) -> None:
    """(X'X + 0.1 I)^-1 X'V, solved at once."""
    bags = np.zeros((len(vectors), len(fitted.ngrams)))
    for row, word in enumerate(vectors):
        columns = [fitted.ngrams.index(ngram) for ngram in ngrams(word)]
        bags[row, columns] = len(columns) ** -0.5
    left = bags.T @ bags + 0.1 * np.eye(len(fitted.ngrams))
    expected = np.linalg.solve(left, bags.T @ np.stack(list(vectors.values())))
    np.testing.assert_allclose(fitted.vectors, expected, atol=1e-3)
    assert fitted.vectors.dtype == np.float32


def test_ngrams_in_most_words_come_first_then_the_alphabet(
    vectors: Vectors, fitted: Subwords, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert fitted.ngrams[:5] == ("<dr", "<dru", "<drum", "dru", "drum")
    assert fitted.ngrams[-1] == "uses>"
    monkeypatch.setattr(subwords, "_MAX_NGRAMS", 4)
    few = fit_subwords(vectors)
    assert few.ngrams == fitted.ngrams[:4]
    assert few.vectors.shape == (4, 5)
    assert few.vector("a") is None
    monkeypatch.setattr(subwords, "_MAX_WORDS", 1)
    assert set(fit_subwords(vectors).ngrams) <= set(ngrams("drum"))


def test_the_same_words_give_the_same_bytes(vectors: Vectors, fitted: Subwords) -> None:
    again = fit_subwords(dict(vectors))
    assert again.ngrams == fitted.ngrams
    assert again.vectors.tobytes() == fitted.vectors.tobytes()


@needs_real_data
def test_real_words_that_were_held_out_are_near_their_kin() -> None:
    """And the words of real questions that the file lacks have a vector."""
    file = REAL / "word2vec" / "glove300-1576.bin"
    known = read_vectors(file, [], 300, frequent_rows=1576)
    for word in ("dogs", "climbs", "running"):
        del known[word]
    fitted = fit_subwords(known)
    names = list(known)
    table = np.stack(list(known.values()))
    table /= np.linalg.norm(table, axis=1, keepdims=True)
    for word, kin in (("dogs", "dog"), ("climbs", "climbing"), ("running", "run")):
        vector = fitted.vector(word)
        assert vector is not None
        nearest = [names[row] for row in np.argsort(-(table @ vector))[:10]]
        assert kin in nearest, (word, nearest)
    for word in ("chainsaw", "helicopter", "rooster", "piano", "trumpet"):
        vector = fitted.vector(word)
        assert word not in known
        assert vector is not None
        assert np.isfinite(vector).all()
        assert vector.any()
