"""Example queries: words of the model's vocabulary that single out indexed videos."""

from itertools import islice

import numpy as np

from trimodal.search.api import default_audio_weight
from trimodal.search.encoder import Encoder
from trimodal.search.store import MomentStore

_MOMENTS, _WORDS = 1_000, 400  # compared; of all moments and of the most frequent words
_SHORTEST = 3  # letters of a word
_SAME = 0.9  # cosine from which on two queries ask the same
# For text networks that know every word.
_EVERYDAY = (
    "a dog barking", "a person speaking", "a car driving past", "waves at the beach", "rain",
    "a crowd cheering", "someone playing the guitar", "a bird singing", "a train", "people dancing",
    "a child laughing", "a cat", "fireworks", "typing on a keyboard", "a plane in the sky",
    "cooking in a kitchen", "a bicycle", "a football match", "church bells", "walking in the snow",
)  # fmt: skip


def example_queries(encoder: Encoder, store: MomentStore, count: int = 6) -> list[str]:
    """Up to ``count`` queries that the model can read, each of another meaning and best at another
    video. None of an empty store.

    A query's similarity to a moment is compared with its mean over moments and with the mean over
    queries, so that neither a word that fits everything nor a moment that everything fits counts.
    """
    queries = _candidates(encoder)
    if not store.moments or not queries:
        return []
    files, vectors = store.sample(_MOMENTS)
    embedded = encoder.embed_text(queries)
    weight = default_audio_weight(1, 0, 0)
    scores = np.concatenate([(1 - weight) * embedded, weight * embedded], axis=1) @ vectors.T
    scores = scores - scores.mean(axis=0) - scores.mean(axis=1, keepdims=True) + scores.mean()
    chosen: list[str] = []
    for _ in range(count):
        query, moment = np.unravel_index(scores.argmax(), scores.shape)
        if scores[query, moment] <= 0:
            break
        chosen.append(queries[query])
        scores[embedded @ embedded[query] >= _SAME] = -np.inf
        scores[:, files == files[moment]] = -np.inf
    return chosen


def _candidates(encoder: Encoder) -> list[str]:
    vocabulary = encoder.vocabulary
    if vocabulary is None:
        return list(_EVERYDAY)
    words = (
        word
        for word in vocabulary.words[2:]
        if len(word) >= _SHORTEST
        and word not in vocabulary.spelled
        and vocabulary.tokeniser.words(word) == [word]
    )
    return list(islice(words, _WORDS))
