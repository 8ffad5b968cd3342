"""The items of a zero-shot test set: read with their labels, and embedded."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from trimodal.core.archives import StoredFile, as_path
from trimodal.core.coverage import check_coverage
from trimodal.core.errors import UserError
from trimodal.core.machine_errors import UnreadableError, retried
from trimodal.core.progress import bar
from trimodal.core.records import Split
from trimodal.core.storage import storage_path
from trimodal.data.clip_index import IndexedClip, read_index
from trimodal.evaluation.prompt_files import ClassList
from trimodal.evaluation.zero_shot import EmbedText, Matrix, WordsOf
from trimodal.evaluation.zero_shot_set import Modality, ZeroShotSet
from trimodal.media.container import DecodingLimits
from trimodal.media.mel import MelConfig
from trimodal.media.tracks import has_audio
from trimodal.media.video import decode_frames
from trimodal.sources.labelled_files import (
    PICTURE_SUFFIXES,
    SOUND_SUFFIXES,
    VIDEO_SUFFIXES,
    LabelledFiles,
    read_audioset_files,
    read_class_folders,
    read_esc50,
    read_label_table,
    read_vggsound_files,
)

_SUFFIXES = {"sound": SOUND_SUFFIXES, "picture": PICTURE_SUFFIXES, "video": VIDEO_SUFFIXES}
LIMITS = DecodingLimits(clip_seconds=900.0, frame_pixels=9_437_184, timeout_seconds=120.0)


@dataclass(frozen=True, kw_only=True)
class ItemEmbeddings:
    """Image and audio embeddings, (items, dim) each, not necessarily unit vectors; the audio of
    items without any is zero.
    """

    image: Matrix
    audio: Matrix
    has_audio: npt.NDArray[np.bool_]

    def of_rows(self, rows: Sequence[int]) -> "ItemEmbeddings":
        """Those of some items."""
        chosen = np.array(rows, np.int64)
        return ItemEmbeddings(
            image=self.image[chosen], audio=self.audio[chosen], has_audio=self.has_audio[chosen]
        )


@dataclass(frozen=True, kw_only=True)
class EmbeddedItems:
    """The embeddings of items, zero for one that cannot be decoded, and by row why it cannot."""

    embeddings: ItemEmbeddings
    faults: Mapping[int, str]


@dataclass(frozen=True, kw_only=True)
class ZeroShotModel:
    """What a model must do, as search.encoder.Encoder does; all embeddings float32 (N, dim).
    ``embed_frames`` takes uint8 (3, frame_px, frame_px). ``words_of`` tells which words the model
    knows (:func:`~trimodal.evaluation.zero_shot.words_in`), None for one with pieces of words.
    """

    embed_text: EmbedText
    embed_images: Callable[[Sequence[Path]], Matrix]
    embed_audio: Callable[[Sequence[Path]], Matrix]
    embed_frames: Callable[[Sequence[Tensor]], Matrix]
    embed_clips: Callable[[Sequence[IndexedClip]], ItemEmbeddings]
    frame_px: int
    mel: MelConfig
    words_of: WordsOf | None


@dataclass(frozen=True, kw_only=True)
class LabelledItem:
    """An item and where its pixels and sound are."""

    name: str
    media: StoredFile | IndexedClip
    labels: tuple[str, ...]
    fold: str


@dataclass(kw_only=True)
class LabelledItems:
    """The items that are used; counts of what is left out, by reason, with an example each; and of
    what is passed over because it is no item.
    """

    used: list[LabelledItem]
    left_out: Counter[str]
    examples: dict[str, str]
    passed_over: Counter[str]

    def leave_out(self, reason: str, example: str) -> None:
        """Counts an item that is not used."""
        self.left_out[reason] += 1
        self.examples.setdefault(reason, example)

    def keep_decoded(
        self, every: Sequence[LabelledItem], embedded: EmbeddedItems
    ) -> ItemEmbeddings:
        """Leaves out the items that cannot be decoded and returns the embeddings of the others;
        ``embedded`` is what was made of ``every`` item, also of those that were left out before.
        """
        row_of = {item: row for row, item in enumerate(every)}
        rows = []
        for item in self.used:
            if (row := row_of[item]) in embedded.faults:
                self.leave_out("cannot be decoded", embedded.faults[row])
            else:
                rows.append(row)
        self.used = [every[row] for row in rows]
        return embedded.embeddings.of_rows(rows)

    def check_coverage(self, name: str, required: float) -> None:
        """Raises DataError if less than the share ``required`` of the set ``name`` is used."""
        check_coverage(
            "evaluate",
            f"items of set {name}",
            len(self.used),
            self.left_out,
            required=required,
            param=f"evaluate.sets.{name}.min_coverage",
            examples=self.examples,
        )


def read_items(config: ZeroShotSet, model: ZeroShotModel) -> LabelledItems:
    """The items of a set in the order of their table, opening none. Raises DataError as the readers
    of :mod:`trimodal.sources.labelled_files` and ``read_index`` do.
    """
    if config.labels == "shards":
        return _clips(config, model)
    found = _read_files(config)
    used = [
        LabelledItem(name=row.name, media=row.file, labels=row.labels, fold=row.fold)
        for row in found.files
    ]
    return LabelledItems(
        used=used,
        left_out=found.left_out,
        examples=found.examples,
        passed_over=found.passed_over,
    )


def _read_files(config: ZeroShotSet) -> LabelledFiles:
    path, media, suffixes = Path(config.path), Path(config.media), _SUFFIXES[config.modality]
    if config.labels == "folder":
        return read_class_folders(path, suffixes)
    if config.labels == "csv":
        return read_label_table(path, media, suffixes)
    if config.labels == "esc50":
        return read_esc50(path)
    if config.labels == "vggsound":
        return read_vggsound_files(path, media, suffixes, cast(Split, config.split))
    return read_audioset_files(path, media, suffixes)


def _clips(config: ZeroShotSet, model: ZeroShotModel) -> LabelledItems:
    """The clips of our shards; among sounds only those that have any."""
    items = LabelledItems(used=[], left_out=Counter(), examples={}, passed_over=Counter())
    for clip in read_index(storage_path(config.path), cast(Split, config.split), model.mel):
        if not clip.label:
            items.leave_out("clip without a label", clip.clip_id)
        elif config.modality == "sound" and not clip.has_audio:
            items.leave_out("clip without sound", clip.clip_id)
        else:
            items.used.append(
                LabelledItem(name=clip.clip_id, media=clip, labels=(clip.label,), fold="")
            )
    return items


def classes_of(items: LabelledItems) -> ClassList:
    """The labels of the items as classes, sorted."""
    labels = tuple(sorted({label for item in items.used for label in item.labels}))
    return ClassList(origin="the labels of the data", labels=labels, words=labels)


def keep_classes(items: LabelledItems, classes: ClassList) -> Counter[str]:
    """Leaves out the items none of whose labels is a class; counts the labels that are none."""
    known = set(classes.labels)
    other = Counter(label for item in items.used for label in item.labels if label not in known)
    kept = []
    for item in items.used:
        if known.isdisjoint(item.labels):
            items.leave_out("label that is no class", f"{item.name}: {item.labels[0]}")
        else:
            kept.append(item)
    items.used = kept
    return other


def embed_items(
    items: Sequence[LabelledItem], modality: Modality, model: ZeroShotModel
) -> EmbeddedItems:
    """Embeds the items, clips of shards all at once and files one by one. Raises UnreadableError
    for a file that this machine cannot read.
    """
    clips = [item.media for item in items if isinstance(item.media, IndexedClip)]
    if clips:
        return EmbeddedItems(embeddings=model.embed_clips(clips), faults={})
    embed = {"sound": _embed_sound, "picture": _embed_picture, "video": _embed_video}[modality]
    rows: dict[int, _Row] = {}
    faults: dict[int, str] = {}
    for number, item in enumerate(bar(items, task="embedding", unit="items", total=len(items))):
        file = cast(StoredFile, item.media)
        try:
            rows[number] = retried(partial(_embed_file, file, partial(embed, model)))
        except UnreadableError:
            raise
        except UserError as error:
            faults[number] = str(error)
    dim = len(next(iter(rows.values()))[0]) if rows else 0
    image, audio = np.zeros((2, len(items), dim), np.float32)
    with_audio = np.zeros(len(items), bool)
    for number, row in rows.items():
        image[number], audio[number], with_audio[number] = row
    return EmbeddedItems(
        embeddings=ItemEmbeddings(image=image, audio=audio, has_audio=with_audio), faults=faults
    )


_Row = tuple[Matrix, Matrix, bool]  # an item's image and audio, (dim,), and whether it has audio


def _embed_file(file: StoredFile, embed: Callable[[Path], _Row]) -> _Row:
    with as_path(file) as path:
        return embed(path)


def _embed_sound(model: ZeroShotModel, path: Path) -> _Row:
    row = model.embed_audio([path])[0]
    return np.zeros_like(row), row, True


def _embed_picture(model: ZeroShotModel, path: Path) -> _Row:
    row = model.embed_images([path])[0]
    return row, np.zeros_like(row), False


def _embed_video(model: ZeroShotModel, path: Path) -> _Row:
    """The mean over the frames of all seconds, and the embedding of its sound if it has any."""
    pictures = decode_frames(path, model.frame_px, model.frame_px, LIMITS)
    frames = [torch.from_numpy(picture).permute(2, 0, 1) for picture in pictures]
    image = model.embed_frames(frames).mean(axis=0)
    if not has_audio(path):
        return image, np.zeros_like(image), False
    return image, model.embed_audio([path])[0], True
