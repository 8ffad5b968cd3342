"""The audit of the metrics: counts, the geometry of the embeddings, and checks that refuse them."""

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from trimodal.core.text import PADDING_ID, UNKNOWN_ID, Vocabulary
from trimodal.evaluation.embeddings import Embeddings, Matrix
from trimodal.evaluation.geometry import effective_rank, mean_cosine
from trimodal.evaluation.matching import MatchedVideos
from trimodal.evaluation.retrieval import EmbeddingError, row_blocks, tied_queries
from trimodal.training.leaks import Leaks

Geometry = dict[str, dict[str, int | float]]


def check_rows(embeddings: Embeddings) -> None:
    """Raises EmbeddingError for rows that are not finite and for rows of zeros, which have no
    direction (a silent video's audio may be zeros). Names the modality and the first such row.
    """
    videos = list(dict.fromkeys(query.video_id for query in embeddings.queries))
    check_modality("image", embeddings.image, videos)
    check_modality("audio", embeddings.audio, videos, embeddings.has_audio)
    check_modality("text", embeddings.text, [query.query_id for query in embeddings.queries])


def check_modality(
    modality: str,
    rows: Matrix,
    names: Sequence[str],
    is_used: npt.NDArray[np.bool_] | None = None,
) -> None:
    """Raises EmbeddingError for rows that are not finite, and for rows of zeros where ``is_used``,
    (rows,), which is everywhere by default. Names the modality and the first such row.
    """
    is_used = np.ones(len(rows), bool) if is_used is None else is_used
    for fault, bad in (
        ("not finite", ~np.isfinite(rows).all(axis=1)),
        ("all zeros", ~rows.any(axis=1) & is_used),
    ):
        if bad.any():
            raise EmbeddingError(
                f"evaluate: {bad.sum()} of {len(rows)} {modality} embeddings are {fault}, the "
                f"first is that of {names[int(bad.argmax())]}"
            )


def geometry_of(embeddings: Embeddings) -> Geometry:
    """The number of rows, their effective rank and their mean cosine for image, audio (of videos
    that have it) and text; modalities with fewer than two rows are left out.
    """
    parts = {
        "image": embeddings.image,
        "audio": embeddings.audio[embeddings.has_audio],
        "text": embeddings.text,
    }
    return geometry_of_rows(parts)


def geometry_of_rows(parts: Mapping[str, Matrix]) -> Geometry:
    """As :func:`geometry_of`, of rows by modality."""
    return {
        modality: {
            "rows": len(rows),
            "effective_rank": effective_rank(rows),
            "mean_cosine": mean_cosine(rows),
        }
        for modality, rows in parts.items()
        if len(rows) >= 2
    }


def check_collapse(
    geometry: Geometry, *, min_effective_rank: float, max_mean_cosine: float
) -> None:
    """Raises EmbeddingError for a modality whose rows nearly all have one direction: a collapse.

    n rows have at most rank n, so the rank is checked only if there are at least twice as many
    rows as the required rank.
    """
    for modality, values in geometry.items():
        rank, cosine = values["effective_rank"], values["mean_cosine"]
        violated = []
        if rank < min_effective_rank and values["rows"] >= 2 * min_effective_rank:
            violated.append(f"evaluate.min_effective_rank is {min_effective_rank:g}")
        if cosine > max_mean_cosine:
            violated.append(f"evaluate.max_mean_cosine is {max_mean_cosine:g}")
        if violated:
            raise EmbeddingError(
                f"evaluate: the {values['rows']} {modality} embeddings have collapsed: effective "
                f"rank {rank:.3f}, mean cosine {cosine:.5f} ({' and '.join(violated)}). Nearly all "
                "have the same direction, so that ranks would be random or ties; look at the "
                "training curves and audit.json. No metrics were written"
            )


def audit_counts(
    test: MatchedVideos,
    embeddings: Embeddings,
    ranked: Embeddings,
    leaks: Leaks,
    vocabulary: Vocabulary | None,
    audio_weight: float,
) -> Mapping[str, int | float]:
    """Counts of videos and queries for audit.json. ``embeddings`` are of all videos in ``test``,
    ``ranked`` of those that the protocol ranks.
    """
    ranked_videos = {query.video_id for query in ranked.queries}
    tied = np.zeros(2, np.int64)
    for block in row_blocks(len(ranked.queries)):
        by_weight = ranked.scores((0.0, audio_weight), block)
        tied += [tied_queries(scores, ranked.true_video[block]) for scores in by_weight]
    return {
        "videos_asked_for": test.in_test_file,
        "videos_found": test.available,
        "videos_with_sound": test.with_audio,
        "videos_missing": test.left_out["missing"],
        **{f"videos_in_training_{reason}": len(pairs) for reason, pairs in leaks.by_reason.items()},
        "test_videos_of_unknown_origin": len(leaks.unknown_origin),
        "videos_seen_in_training_left_out": test.left_out["seen in training"],
        "videos_seen_in_training_kept": len(ranked_videos & leaks.videos),
        "queries": len(ranked.queries),
        "distinct_sentences": len({query.sentence.strip() for query in ranked.queries}),
        "gallery": len(ranked.image),
        "gallery_without_audio": int((~ranked.has_audio).sum()),
        "silent_videos_left_out": len(embeddings.image) - len(ranked.image),
        "points_padded_with_silence": embeddings.padded_windows,
        "videos_with_identical_embedding": identical_videos(ranked),
        "queries_tied_image": int(tied[0]),
        "queries_tied_image_audio": int(tied[1]),
        **_unknown_words([query.sentence for query in ranked.queries], vocabulary),
    }


def _unknown_words(
    sentences: Sequence[str], vocabulary: Vocabulary | None
) -> dict[str, int | float]:
    """Nothing for a text tower with a tokeniser of its own, which has no unknown words."""
    if vocabulary is None:
        return {}
    ids, _ = vocabulary.encode([vocabulary.tokeniser.words(sentence) for sentence in sentences])
    words = ids[ids != PADDING_ID]
    return {
        "unknown_word_share": float((words == UNKNOWN_ID).mean()) if len(words) else 0.0,
        "queries_without_known_word": int((~(ids > UNKNOWN_ID).any(axis=1)).sum()),
    }


def identical_videos(embeddings: Embeddings) -> int:
    """The number of videos with the same image and audio embeddings as another video."""
    image_audio = np.concatenate([embeddings.image, embeddings.audio], axis=1)
    counts = np.unique(image_audio, axis=0, return_counts=True)[1]
    return int(counts[counts > 1].sum())
