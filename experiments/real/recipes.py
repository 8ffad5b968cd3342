"""The recipes, from the paper's to our best, one change at a time, and how they are trained on the
features of the frozen image backbone: the library's heads, networks and losses, with Adam.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.optim import Adam
from torch.optim.lr_scheduler import StepLR

from experiments.real.prepared import BACKBONE, Captioned, CaptionedClip
from trimodal.core.timing import training_positions
from trimodal.data.readers import read_windows
from trimodal.losses.config import LossConfig, configured_loss
from trimodal.losses.info_nce import LogitScale
from trimodal.media.windows import AudioFrontEnd
from trimodal.models.networks import ModelConfig, TrimodalNet

_BATCH = 512  # the paper's
_RATE = 0.001  # the paper trains the whole networks at a tenth of it
_WEIGHT_DECAY = 0.00001  # the authors' code's
_FULL_RATE_SHARE = 0.75  # of the epochs; then the rate is a tenth, as in the paper
_VIEWS = 2  # features of the image itself, and mirrored


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A model, its loss, and for how many epochs it is trained."""

    name: str
    model: ModelConfig
    loss: LossConfig
    epochs: int


_PAPERS_MODEL = ModelConfig(
    image_backbone=BACKBONE, image_weights="none", audio_weights="none", width=16,
    head="two_layer", dropout=0.0, text_network="cnn", text_pooling="all", word_vectors="frozen",
)  # fmt: skip
# The paper's loss; both margins and the mean over negatives are as in the authors' code.
_PAPERS_LOSS = LossConfig(
    kind="hinges", margin_mode="fixed", margin=0.2, variable_margin=0.4,
    final_variable_margin=None, margin_temperature=1.0, reduction="mean", temperature=0.07,
)  # fmt: skip


def with_margin(recipe: Recipe, mode: Literal["fixed", "variable"]) -> Recipe:
    """The recipe with hinges of this margin mode."""
    loss = replace(recipe.loss, kind="hinges", margin_mode=mode)
    return replace(recipe, loss=loss, name=f"{recipe.name}, {mode} margin")


def ladder() -> list[Recipe]:
    """From the paper's recipe (hinges, fixed margin) to ours, each with one more change."""
    papers = "the paper's, on frozen features"
    first = Recipe(name=papers, model=_PAPERS_MODEL, loss=_PAPERS_LOSS, epochs=20)
    mean = _changed(first, "text: the mean of the words", text_network="mean")
    mean = replace(mean, epochs=40)
    linear = _changed(mean, "heads of one layer", head="linear")
    soft = replace(linear, name="InfoNCE", loss=replace(_PAPERS_LOSS, kind="info_nce"))
    dropped = _changed(soft, "half of the image features dropped", dropout=0.5)
    return [first, mean, linear, soft, dropped, _changed(dropped, "ours", word_vectors="trained")]


def _changed(recipe: Recipe, name: str, **model: Any) -> Recipe:
    return replace(recipe, name=name, model=replace(recipe.model, **model))


def papers_recipe() -> Recipe:
    """The first of the ladder."""
    return ladder()[0]


def best_recipe() -> Recipe:
    """The last of the ladder."""
    return ladder()[-1]


@dataclass(frozen=True, kw_only=True)
class Moments:
    """A clip's moments for training: features of frames (moments, 2, features) and the audio
    windows centred on them (moments, 1, mels, columns).
    """

    features: Tensor
    windows: Tensor


def moments_of(captioned: CaptionedClip, front_end: AudioFrontEnd) -> Moments:
    """The clip's frames whose whole window fits, and those windows."""
    clip = captioned.clip
    positions = training_positions(
        clip.frames, clip.sound_s, front_end.window.seconds, 1, clip.frames
    )
    centres = [position.centre_seconds for position in positions]
    windows, _ = read_windows([clip] * len(positions), centres, front_end)
    rows = [position.frame - 1 for position in positions]
    return Moments(features=torch.from_numpy(captioned.features[rows]).float(), windows=windows)


def train(
    recipe: Recipe,
    images: Captioned,
    vectors: np.ndarray,
    seed: int,
    clips: Sequence[Moments] = (),
) -> TrimodalNet:
    """Trains on captions, and on a random moment of each of ``clips`` in every step; returns the
    networks of the last epoch in evaluation mode. Of the image network only the head is trained.
    """
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    network = TrimodalNet(recipe.model, torch.from_numpy(vectors.copy()))
    logit_scales = [LogitScale(recipe.loss.temperature) for _ in range(2)]
    optimiser = Adam(network.parameters(), lr=_RATE, weight_decay=_WEIGHT_DECAY)
    for logit_scale in logit_scales:
        optimiser.add_param_group({"params": logit_scale.parameters(), "weight_decay": 0.0})
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
                configured_loss(*pair, recipe.loss, progress=0.0, logit_scale=logit_scale())
                for pair, logit_scale in zip(pairs, logit_scales, strict=False)
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
