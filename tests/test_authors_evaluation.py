"""Frame positions, mean embeddings, mixing and ranks beside the authors' code (docs/method.md).

The oracles are plain loops from the formulas. Where we differ on purpose, the test's name says so.
Not repeated here:

- the positions of every length from 4 to 63 frames, our rule for shorter videos: test_timing
- our ranks with ties and NaN: test_retrieval
- silent videos in both protocols: test_evaluate
"""

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pytest
import torch
from evaluation_fixtures import clip_of, queries_of
from mel_fixtures import PAPER

from trimodal.core.timing import evenly_spaced_positions
from trimodal.evaluation import embedding
from trimodal.evaluation.embedding import VideoViews
from trimodal.evaluation.retrieval import EmbeddingError, mix, ranks, similarity, summarise
from trimodal.evaluation.text_video import embed_test_set
from trimodal.media.windows import window_first_column
from trimodal.models.text_input import TextBatch
from trimodal.training.distributed import SINGLE_PROCESS

Array = npt.NDArray[np.float64]

# Four frames of a test video


def authors_positions(frames: int) -> list[float]:
    """Evenly from 2 to the last frame but 2; file names of two digits are sorted as text."""
    last = int(max(f"{frame:02d}" for frame in range(1, frames + 1)))
    return [2 + k * (last - 4) / 3 for k in range(4)]


@pytest.mark.parametrize(
    ("frames", "shown"),
    [(4, [2, 2, 2, 2]), (5, [2, 2, 2, 3]), (10, [2, 4, 6, 8]), (11, [2, 4, 6, 9]),
     (12, [2, 4, 7, 10]), (15, [2, 5, 9, 13]), (30, [2, 10, 19, 28]), (99, [2, 33, 65, 97])],
)  # fmt: skip
def test_positions_are_the_authors_to_half_a_column(frames: int, shown: list[int]) -> None:
    """They cut the audio at any sample, we at a column of the stored mel: up to 5 ms apart."""
    ours = evenly_spaced_positions(frames, frames - 0.2, 3.0, 4)
    assert [position.frame for position in ours] == shown
    assert [int(position + 1e-9) for position in authors_positions(frames)] == shown
    for position, theirs in zip(ours, authors_positions(frames), strict=True):
        first_sample = 441 * window_first_column(position.centre_seconds, PAPER)
        assert abs(first_sample - int(44_100 * (theirs - 2))) <= 221


def test_windows_between_columns_begin_elsewhere_than_the_authors() -> None:
    second = evenly_spaced_positions(11, 10.8, 3.0, 4)[1]
    assert int(44_100 * (authors_positions(11)[1] - 2)) == 102_900
    assert 441 * window_first_column(second.centre_seconds, PAPER) == 102_753


def test_videos_of_more_than_99_frames_are_sampled_to_their_end() -> None:
    """The authors' stop at frame 97, as "99" sorts after "100"; MSR-VTT's have 10 to 32."""
    assert authors_positions(150)[-1] == 97
    assert evenly_spaced_positions(150, 150.0, 3.0, 4)[-1].frame == 148


@pytest.mark.parametrize("frames", [1, 2, 3])
def test_short_videos_have_positions_where_the_authors_fail(frames: int) -> None:
    """Their positions go backwards to frames or audio before the first."""
    assert min(authors_positions(frames)) - 2 < 0
    assert all(position.frame >= 1 for position in evenly_spaced_positions(frames, frames, 3.0, 4))


# The mean of their embeddings


class Angles(torch.nn.Module):
    """Embeds the number n in a frame, window or id as the direction (cos n, sin n, 0, ...)."""

    def forward(self, numbers: torch.Tensor, _further: object = None) -> torch.Tensor:
        angle = numbers.flatten(1)[:, 0].double()
        rest = torch.zeros(len(angle), 254)
        return torch.hstack([angle.cos()[:, None], angle.sin()[:, None], rest]).float()

    def prepare(self, frames: torch.Tensor) -> torch.Tensor:
        return frames

    @property
    def tokenise(self) -> "Angles":
        return self

    def encode(self, sentences: Sequence[str]) -> TextBatch:
        return TextBatch(torch.zeros(len(sentences), 16), None)


class AngleNetwork(torch.nn.Module):
    embedding_dim = 256

    def __init__(self) -> None:
        super().__init__()
        self.image = self.audio = self.text = Angles()


def test_a_videos_embedding_is_the_mean_of_four_and_not_a_unit_vector(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    angles = {"video0": [0.0, 0.5, 1.0, 3.0], "video1": [2.0, 2.0, 2.0, 2.0]}

    def views(video: object, *_: object) -> VideoViews:
        numbers = torch.tensor(angles[video.clip_id])[:, None]  # type: ignore[attr-defined]
        return VideoViews(frames=numbers, windows=numbers + 1, padded_windows=0)

    monkeypatch.setattr(embedding, "video_views", views)
    embeddings = embed_test_set(
        AngleNetwork(),  # type: ignore[arg-type]
        queries_of(2),
        [clip_of("video0"), clip_of("video1")],
        frames_per_video=4, renormalise=False, front_end=PAPER, augment=None,  # type: ignore[arg-type]
        world=SINGLE_PROCESS,
    )  # fmt: skip
    for row, numbers in enumerate(angles.values()):
        for rows, offset in ((embeddings.image, 0.0), (embeddings.audio, 1.0)):
            mean = [sum(f(n + offset) for n in numbers) / 4 for f in (math.cos, math.sin)]
            assert rows[row, :2].tolist() == pytest.approx(mean, abs=1e-6)
    assert math.hypot(*embeddings.image[0]) == pytest.approx(0.5109, abs=1e-4)
    assert math.hypot(*embeddings.image[1]) == pytest.approx(1.0)


# The mixed similarity and its ranks


def authors_metrics(scores: Array) -> dict[str, float]:
    """Positions in the sorted row whose score equals the true one; all rows' are pooled."""
    positions = [
        position
        for i, row in enumerate(scores.tolist())
        for position, score in enumerate(sorted(row, reverse=True))
        if score == row[i]
    ]
    metrics = {f"R@{k}": 100 * sum(p < k for p in positions) / len(positions) for k in (1, 5, 10)}
    return metrics | {"MedR": float(np.median(positions)) + 1}


def test_mixed_similarity_and_its_ranks_are_the_authors() -> None:
    text, image, audio = np.random.default_rng(6).standard_normal((3, 40, 8))
    videos = list(zip(image, audio, strict=True))
    slow = np.array([[0.8 * sum(t * v) + 0.2 * sum(t * a) for v, a in videos] for t in text])
    mixed = mix(similarity(text, image), similarity(text, audio), 0.2)
    np.testing.assert_allclose(mixed, slow, rtol=0, atol=1e-5)
    ours = summarise(ranks(mixed))
    del ours["MeanR"]
    assert ours == pytest.approx(authors_metrics(slow))


def test_ties_and_nan_are_not_ranked_as_by_the_authors() -> None:
    """A tied row is counted once for each of its positions, a row with NaN not at all."""
    tied = np.array([[2.0, 2.0, 2.0], [1.0, 0.0, 0.5], [1.0, 0.5, 0.0]])
    assert authors_metrics(tied)["R@1"] == pytest.approx(100 / 5)
    assert summarise(ranks(tied)) == pytest.approx(
        {"R@1": 0.0, "R@5": 100.0, "R@10": 100.0, "MedR": 3.0, "MeanR": 8 / 3}
    )
    broken = np.array([[np.nan, 1.0], [0.0, 1.0]])
    assert authors_metrics(broken)["R@1"] == 100
    with pytest.raises(EmbeddingError):
        ranks(broken)
