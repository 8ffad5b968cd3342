"""The recipes, from the paper's to our best, one change at a time, and how they are trained on
features: the library's networks behind the image backbone, its losses, Adam.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.optim import Adam
from torch.optim.lr_scheduler import StepLR
from trimodal.training.datasets import read_windows

from benchmarks.real.prepared import BACKBONE, Captioned, SeenClip
from trimodal.core.timing import training_positions
from trimodal.losses.config import LossConfig, configured_loss
from trimodal.losses.info_nce import LearnedScale
from trimodal.media.mel import MelConfig
from trimodal.models.networks import ModelConfig, TrimodalNet

_BATCH = 512  # the paper's
_RATE, _WEIGHT_DECAY = 0.001, 0.00001  # the paper's rate is a tenth, for whole networks
_FULL_RATE_SHARE = 0.75  # of the epochs; then the rate is a tenth, as in the paper
_VIEWS = 2  # of a picture's features: as it is, and mirrored


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A model's parts, its loss, and for how many epochs its heads are trained."""

    name: str
    model: ModelConfig
    loss: LossConfig
    epochs: int


_PAPERS_MODEL = ModelConfig(
    image_backbone=BACKBONE, image_weights="none", audio_weights="none", width=16,
    head="two_layer", dropout=0.0, text_network="cnn", text_pooling="all", word_vectors="frozen",
)  # fmt: skip
_PAPERS_LOSS = LossConfig(
    kind="hinges", margin_mode="fixed", margin=0.2, variable_scale=0.4, final_scale=None,
    margin_temperature=1.0, reduction="mean", temperature=0.07,
)  # fmt: skip


def with_margin(recipe: Recipe, mode: Literal["fixed", "variable"]) -> Recipe:
    """The recipe with hinges of this margin mode."""
    loss = replace(recipe.loss, kind="hinges", margin_mode=mode)
    return replace(recipe, loss=loss, name=f"{recipe.name}, {mode} margin")


def ladder() -> list[Recipe]:
    """From the paper's recipe (hinges, fixed margin) to ours, each with one change more."""
    papers = "the paper's, on frozen features"
    first = Recipe(name=papers, model=_PAPERS_MODEL, loss=_PAPERS_LOSS, epochs=20)
    mean = _but(first, "text: the mean of the words", text_network="mean")
    mean = replace(mean, epochs=40)
    linear = _but(mean, "heads of one layer", head="linear")
    soft = replace(linear, name="InfoNCE", loss=replace(_PAPERS_LOSS, kind="info_nce"))
    dropped = _but(soft, "half of the image features dropped", dropout=0.5)
    return [first, mean, linear, soft, dropped, _but(dropped, "ours", word_vectors="trained")]


def _but(recipe: Recipe, name: str, **model: Any) -> Recipe:
    return replace(recipe, name=name, model=replace(recipe.model, **model))


def papers_recipe() -> Recipe:
    """The first of the ladder."""
    return ladder()[0]


def best_recipe() -> Recipe:
    """The last of the ladder."""
    return ladder()[-1]


@dataclass(frozen=True, kw_only=True)
class Moments:
    """What a clip may be shown at in training: features (moments, 2, features) and windows
    (moments, 1, mels, columns).
    """

    features: Tensor
    windows: Tensor


def moments_of(seen: SeenClip, mel: MelConfig) -> Moments:
    """The clip's frames whose whole window fits, and those windows."""
    clip = seen.clip
    points = training_positions(clip.frames, clip.sound_s, mel.window_seconds, 1, clip.frames)
    windows, _ = read_windows([clip] * len(points), [p.centre_seconds for p in points], mel)
    rows = [point.frame - 1 for point in points]
    return Moments(features=torch.from_numpy(seen.features[rows]).float(), windows=windows)


def train(
    recipe: Recipe,
    images: Captioned,
    vectors: np.ndarray,
    seed: int,
    clips: Sequence[Moments] = (),
) -> TrimodalNet:
    """Trains on captions, and on ``clips``, all of them in each step, a random moment each; the
    last epoch's networks, in evaluation mode. The image network learns its head alone.
    """
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    network = TrimodalNet(recipe.model, torch.from_numpy(vectors.copy()))
    scales = [LearnedScale(recipe.loss.temperature) for _ in range(2)]
    optimiser = Adam(network.parameters(), lr=_RATE, weight_decay=_WEIGHT_DECAY)
    for scale in scales:
        optimiser.add_param_group({"params": scale.parameters(), "weight_decay": 0.0})
    schedule = StepLR(optimiser, round(_FULL_RATE_SHARE * recipe.epochs), 0.1)
    for _ in range(recipe.epochs):
        order = rng.permutation(len(images.features))
        for rows in order[: len(order) // _BATCH * _BATCH].reshape(-1, _BATCH):
            features, token_ids = _captioned_batch(images, rows, rng)
            pairs = [(network.image.from_features(features), network.text(token_ids))]
            if clips:
                frames, windows = _moments_batch(clips, rng)
                pairs.append((network.image.from_features(frames), network.audio(windows)))
            losses = [
                configured_loss(*pair, recipe.loss, progress=0.0, scale=scale())
                for pair, scale in zip(pairs, scales, strict=False)
            ]
            optimiser.zero_grad()
            torch.stack(losses).sum().backward()  # type: ignore[no-untyped-call]
            optimiser.step()
        schedule.step()
    return network.eval()


def _captioned_batch(
    images: Captioned, rows: np.ndarray, rng: np.random.Generator
) -> tuple[Tensor, Tensor]:
    views = rng.integers(0, _VIEWS, len(rows))
    captions = rng.integers(images.first[rows], images.first[rows + 1])
    features = torch.from_numpy(images.features[rows, views]).float()
    return features, torch.from_numpy(images.token_ids[captions])


def _moments_batch(clips: Sequence[Moments], rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    chosen = [(clip, int(rng.integers(len(clip.windows)))) for clip in clips]
    views = rng.integers(0, _VIEWS, len(clips)).tolist()
    frames = [clip.features[at, view] for (clip, at), view in zip(chosen, views, strict=True)]
    return torch.stack(frames), torch.stack([clip.windows[at] for clip, at in chosen])
