"""Section ``evaluate``: the test sets by kind, and what they share."""

from typing import Annotated, Literal

from pydantic import Field, NonNegativeInt, PositiveInt, StringConstraints
from pydantic.dataclasses import dataclass as section_dataclass

from trimodal.core.config import SECTION, Share
from trimodal.evaluation.localisation_set import LocalisationSet
from trimodal.evaluation.zero_shot_set import ZeroShotSet

Protocol = Literal["standard", "authors"]
Duplicates = Literal["own", "any"]
SetName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]{1,64}$")]
FileName = Annotated[str, StringConstraints(pattern=r"^[^/\\.\x00][^/\\\x00]{0,254}$")]


@section_dataclass(frozen=True, kw_only=True, config=SECTION)
class TextVideoSet:
    """Sentences and videos of the test shards. ``path`` is a file of
    :func:`~trimodal.sources.msrvtt.read_queries`. Protocol ``standard`` keeps every video and ranks
    a silent one by its image alone; ``authors`` leaves silent videos out. With ``duplicates:
    any``, every video with the same sentence is right.
    """

    kind: Literal["text_video"]
    path: str
    protocol: Protocol
    duplicates: Duplicates


@section_dataclass(frozen=True, kw_only=True, config=SECTION)
class TextImageSet:
    """Captions and image files. ``path`` is a folder of
    :func:`~trimodal.sources.image_sets.read_image_set`. The first ``captions_per_image`` captions
    of an image count (null: all). ``folds`` images at a time are a gallery, and the folds' metrics
    are averaged; 0: all images are one.
    """

    kind: Literal["text_image"]
    path: str
    dataset: Literal["coco", "flickr30k", "flickr8k"]
    annotations: Literal["official", "karpathy"]
    split: Literal["train", "val", "dev", "test"]
    captions_per_image: PositiveInt | None
    folds: NonNegativeInt
    duplicates: Duplicates


@section_dataclass(frozen=True, kw_only=True, config=SECTION)
class TextAudioSet:
    """Captions and sound files. ``path`` is a folder; in it, ``captions`` is a CSV of
    :func:`~trimodal.sources.sounds.read_captioned_sounds` and ``media`` a folder or archive.
    """

    kind: Literal["text_audio"]
    path: str
    captions: FileName
    media: FileName
    duplicates: Duplicates


@section_dataclass(frozen=True, kw_only=True, config=SECTION)
class AudioImageSet:
    """Audio and images of clips of the test shards. ``path`` is a CSV of
    :func:`~trimodal.sources.clip_lists.read_clip_list`.
    """

    kind: Literal["audio_image"]
    path: str


TestSet = Annotated[
    TextVideoSet | TextImageSet | TextAudioSet | AudioImageSet | ZeroShotSet | LocalisationSet,
    Field(discriminator="kind"),
]


@section_dataclass(frozen=True, kw_only=True, config=SECTION)
class EvaluateConfig:
    """Section ``evaluate``. ``sets`` are the test sets by name, perhaps none. ``audio_weight`` is
    the weight of audio in text->video, ``text_weight`` that of text in audio->image (the authors'
    code: 0.2 and 0.3). The curve over the audio weight has ``curve_steps`` intervals. At least
    ``min_coverage`` of a test set's items must be available. Embeddings with an effective rank
    below ``min_effective_rank`` or a mean cosine above ``max_mean_cosine`` count as collapsed. A
    video's
    image and audio embeddings are means over ``frames_per_video`` frames and audio windows, a
    sound's the mean over all its windows; with ``renormalise`` they are normalised again (the
    authors' code does not). Intervals come from ``bootstrap_resamples`` resamples of the queries
    (0: no intervals). ``query_bank`` is the number of training captions with which QB-Norm
    corrects hubs (0: without).
    """

    sets: dict[SetName, TestSet]
    frames_per_video: PositiveInt
    renormalise: bool
    audio_weight: Share
    text_weight: Share
    curve_steps: PositiveInt
    bootstrap_resamples: NonNegativeInt
    query_bank: NonNegativeInt
    min_coverage: Share
    min_effective_rank: Annotated[float, Field(ge=1)]
    max_mean_cosine: Annotated[float, Field(ge=-1, le=1)]
