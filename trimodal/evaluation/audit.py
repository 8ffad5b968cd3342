"""What stands behind the metrics: counts, the spread of the embeddings, and what is refused."""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from trimodal.core.text import UNKNOWN_ID, Vocabulary, tokenise
from trimodal.evaluation.embedding import Embeddings, MatchedVideos, Matrix
from trimodal.evaluation.geometry import effective_rank, mean_cosine
from trimodal.evaluation.retrieval import EmbeddingError, row_blocks, tied_queries
from trimodal.training.leaks import Leaks

Geometry = dict[str, dict[str, int | float]]


def check_rows(embeddings: Embeddings) -> None:
    """Raises EmbeddingError for rows that are not finite and for rows of zeros, which are similar
    to nothing (a silent video's audio may be zeros). Names the modality and the first row.
    """
    videos = list(dict.fromkeys(query.video_id for query in embeddings.queries))
    everyone = np.ones(len(videos), bool)
    _check_rows("image", embeddings.image, videos, everyone)
    _check_rows("audio", embeddings.audio, videos, embeddings.has_audio)
    queries = [query.query_id for query in embeddings.queries]
    _check_rows("text", embeddings.text, queries, np.ones(len(queries), bool))


def _check_rows(
    modality: str, rows: Matrix, names: list[str], in_use: npt.NDArray[np.bool_]
) -> None:
    for fault, bad in (
        ("not finite", ~np.isfinite(rows).all(axis=1)),
        ("all zeros", ~rows.any(axis=1) & in_use),
    ):
        if bad.any():
            raise EmbeddingError(
                f"evaluate: {bad.sum()} of {len(rows)} {modality} embeddings are {fault}, the "
                f"first that of {names[int(bad.argmax())]}"
            )


def geometry(embeddings: Embeddings) -> Geometry:
    """For image, audio (where there is sound) and text: how many rows, their effective rank and
    their mean cosine; nothing for a modality of fewer than two rows.
    """
    parts = {
        "image": embeddings.image,
        "audio": embeddings.audio[embeddings.has_audio],
        "text": embeddings.text,
    }
    return {
        modality: {
            "rows": len(rows),
            "effective_rank": effective_rank(rows),
            "mean_cosine": mean_cosine(rows),
        }
        for modality, rows in parts.items()
        if len(rows) >= 2
    }


def check_spread(found: Geometry, *, min_effective_rank: float, max_mean_cosine: float) -> None:
    """Raises EmbeddingError for a modality whose rows are nearly one direction: a collapse.

    n rows have at most rank n, so fewer than twice the needed rank are judged by cosine alone.
    """
    for modality, spread in found.items():
        rank, cosine = spread["effective_rank"], spread["mean_cosine"]
        broken = []
        if rank < min_effective_rank and spread["rows"] >= 2 * min_effective_rank:
            broken.append(f"evaluate.min_effective_rank is {min_effective_rank:g}")
        if cosine > max_mean_cosine:
            broken.append(f"evaluate.max_mean_cosine is {max_mean_cosine:g}")
        if broken:
            raise EmbeddingError(
                f"evaluate: the {spread['rows']} {modality} embeddings have collapsed: effective "
                f"rank {rank:.3f}, mean cosine {cosine:.5f} ({' and '.join(broken)}). They nearly "
                "all point the same way, so ranks by them are chance or ties; look at the training "
                "curves and audit.json. No metrics were written"
            )


def audit_counts(
    test: MatchedVideos,
    embeddings: Embeddings,
    kept: Embeddings,
    leaks: Leaks,
    vocabulary: Vocabulary,
    audio_weight: float,
) -> Mapping[str, int | float]:
    """How many videos were asked for, found, heard, seen in training, ranked. ``embeddings`` are
    of all videos in ``test``, ``kept`` of those that the protocol ranks.
    """
    ids = [vocabulary.token_ids(tokenise(query.sentence)) for query in kept.queries]
    words = np.concatenate([row[row != 0] for row in ids]) if ids else np.zeros(0)
    ranked = {query.video_id for query in kept.queries}
    tied = np.zeros(2, np.int64)
    for block in row_blocks(len(kept.queries)):
        by_weight = kept.scores((0.0, audio_weight), block)
        tied += [tied_queries(scores, kept.truth[block]) for scores in by_weight]
    return {
        "videos_asked_for": test.asked_for,
        "videos_found": test.found,
        "videos_with_sound": test.with_sound,
        "videos_missing": test.left_out["missing"],
        **{f"videos_in_training_{reason}": len(pairs) for reason, pairs in leaks.by_reason.items()},
        "test_videos_of_unknown_origin": len(leaks.unknown_origin),
        "videos_seen_in_training_left_out": test.left_out["seen in training"],
        "videos_seen_in_training_kept": len(ranked & leaks.videos),
        "queries": len(kept.queries),
        "gallery": len(kept.image),
        "gallery_without_audio": int((~kept.has_audio).sum()),
        "silent_videos_left_out": len(embeddings.image) - len(kept.image),
        "points_padded_with_silence": embeddings.padded_points,
        "videos_with_identical_embedding": identical_videos(kept),
        "queries_tied_image": int(tied[0]),
        "queries_tied_image_audio": int(tied[1]),
        "unknown_word_share": float((words == UNKNOWN_ID).mean()) if len(words) else 0.0,
        "queries_without_known_word": sum(not (row > UNKNOWN_ID).any() for row in ids),
    }


def identical_videos(embeddings: Embeddings) -> int:
    """How many videos have another with the same image and the same audio embedding."""
    both = np.concatenate([embeddings.image, embeddings.audio], axis=1)
    counts = np.unique(both, axis=0, return_counts=True)[1]
    return int(counts[counts > 1].sum())
