"""Vectors for words that have none: ``python -m benchmarks.unknown_words`` (minutes).

Holds out a fifth of the words of ``../shared/data``'s 1,576 word vectors, five times, and gives
each a vector without its own: from its n-grams, which are fitted to the other words' vectors
(trimodal.core.subwords, what ``captions.unknown_words: subword`` does), or from gensim's FastText
trained on the captions of Flickr8k and COCO's validation set, mapped to the vectors' space by ridge
regression on the other words. FastText may have seen the held-out words in captions, or not: then
only their n-grams remain, as with a query's word. Compared with the true vector: the cosine, and
its rank among all words' vectors by the cosine with the guess. Prints a Markdown table.
"""

import argparse
import json
from collections.abc import Callable, Mapping
from functools import partial

import numpy as np
import numpy.typing as npt

from benchmarks.measuring import ROOT, say
from trimodal.core.language import nltk_tokenise, tokeniser_of
from trimodal.core.subwords import fit_subwords
from trimodal.sources.flickr30k import read_flickr30k
from trimodal.sources.word2vec import read_vectors

SHARED = ROOT.parent / "shared" / "data"
FOLDS = 5
FASTTEXT_DIM = 100
QUERIES = ("chainsaw", "helicopter", "rooster", "piano", "trumpet")  # words that the file lacks

Matrix = npt.NDArray[np.float32]
Vectors = Mapping[str, Matrix]
Guess = Callable[[Vectors, list[str]], Matrix]  # known words, unknown words -> (unknown, 300)


def main() -> None:
    """Prints the table, and the nearest words of a few that the file lacks."""
    argparse.ArgumentParser(description=str(__doc__).splitlines()[0]).parse_args()
    file = SHARED / "word2vec" / "glove300-1576.bin"
    vectors = read_vectors(file, [], 300, frequent_rows=10_000, is_word=str.isalpha)
    sentences = captions()
    ways: dict[str, Guess] = {
        "n-grams fitted to the known vectors": by_spelling,
        "FastText, the word in no caption": partial(by_fasttext, sentences, seen=False),
        "FastText, the word in captions": partial(by_fasttext, sentences, seen=True),
        "the mean of all vectors": by_mean,
    }
    say(f"{len(vectors)} words, {len(sentences)} captions\n")
    say("| vector of a held-out word | cosine | median rank | rank 1 | rank 10 or better |")
    say("| --- | ---: | ---: | ---: | ---: |")
    for name, guess in ways.items():
        cosines, ranks = held_out(vectors, guess)
        say(
            f"| {name} | {cosines.mean():.3f} | {np.median(ranks):.0f} "
            f"| {np.mean(ranks == 1):.1%} | {np.mean(ranks <= 10):.1%} |"
        )
    names, table = list(vectors), unit(np.stack(list(vectors.values())))
    say("\nNearest to words that the file lacks:\n")
    for word, vector in zip(QUERIES, by_spelling(vectors, list(QUERIES)), strict=True):
        nearest = np.argsort(-(table @ vector))[:4]
        say(f"- {word}: {', '.join(names[row] for row in nearest)}")


def captions() -> list[list[str]]:
    """The captions of Flickr8k and of COCO's validation set, as words."""
    words = nltk_tokenise(tokeniser_of("english"))
    images, _ = read_flickr30k(SHARED / "flickr8k")
    texts = [caption for image in images for caption in image.captions]
    coco = SHARED / "annotations" / "coco_captions_val2017_full.json"
    texts += [row["caption"] for row in json.loads(coco.read_text())["annotations"]]
    return [words(text) for text in texts]


def held_out(
    vectors: Vectors, guess: Guess
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:
    """Each word's cosine with its guess, and its rank among all words by the cosine with it."""
    names, table = list(vectors), unit(np.stack(list(vectors.values())))
    folds = np.random.default_rng(0).integers(0, FOLDS, len(names))
    cosines, ranks = np.zeros(len(names)), np.zeros(len(names), np.int64)
    for fold in range(FOLDS):
        known = {word: vectors[word] for word, of in zip(names, folds, strict=True) if of != fold}
        rows = np.flatnonzero(folds == fold)
        similar = unit(guess(known, [names[row] for row in rows])) @ table.T
        cosines[rows] = similar[np.arange(len(rows)), rows]
        ranks[rows] = 1 + (similar > cosines[rows, None]).sum(axis=1)
    return cosines, ranks


def by_spelling(known: Vectors, unknown: list[str]) -> Matrix:
    """The project's way; zeros where no n-gram is known."""
    subwords = fit_subwords(known)
    guesses = (subwords.vector(word) for word in unknown)
    return np.stack([np.zeros(300, np.float32) if g is None else g for g in guesses])


def by_fasttext(
    sentences: list[list[str]], known: Vectors, unknown: list[str], *, seen: bool
) -> Matrix:
    """FastText trained on the captions, with or without the unknown words, mapped by ridge
    regression.
    """
    from gensim.models import FastText
    from sklearn.linear_model import Ridge

    hidden = set() if seen else set(unknown)
    corpus = [[word for word in sentence if word not in hidden] for sentence in sentences]
    model = FastText(
        corpus, vector_size=FASTTEXT_DIM, min_count=1, sg=1, min_n=3, max_n=5, bucket=50_000,
        workers=1, seed=1,
    )  # fmt: skip
    inputs, wanted = (np.stack([model.wv[word] for word in words]) for words in (known, unknown))
    fitted = Ridge(alpha=1.0).fit(inputs, np.stack(list(known.values())))
    return np.asarray(fitted.predict(wanted), np.float32)


def by_mean(known: Vectors, unknown: list[str]) -> Matrix:
    """The same for all."""
    return np.repeat(np.mean(list(known.values()), axis=0, keepdims=True), len(unknown), axis=0)


def unit(rows: Matrix) -> Matrix:
    """Rows of length 1; zeros stay."""
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.asarray(rows / np.maximum(lengths, 1e-12), np.float32)


if __name__ == "__main__":
    main()
