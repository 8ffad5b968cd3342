"""The items of a test set of kind ``localisation``: a picture, its sound, boxes around what sounds.

``read`` of an item decodes it; what cannot be read is left out then.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from trimodal.core.files import read_table
from trimodal.core.records import DataError, check_name
from trimodal.core.schemas import TRUTH_SCHEMA
from trimodal.core.timing import middle_position
from trimodal.data.clip_index import IndexedClip
from trimodal.data.readers import read_frame, read_windows
from trimodal.data.shard_files import ReadShard
from trimodal.evaluation.localisation_set import LocalisationSet
from trimodal.media.audio_windows import audio_windows
from trimodal.media.container import LimitError, MediaError
from trimodal.media.image import ImageError, square
from trimodal.models.checkpoint import Checkpoint
from trimodal.sources.sound_boxes import Box, SoundBoxes, read_flickr_soundnet, read_vggss

FRAMES, AUDIO, ANNOTATIONS, VGGSS = "frames", "audio", "Annotations", "vggss.json"
_PICTURES, _SOUNDS = (".jpg", ".jpeg", ".png"), (".wav", ".flac", ".mp3", ".ogg", ".m4a")


class LeftOutError(ValueError):
    """An item that cannot be used; the message is the reason under which it is counted."""


@dataclass(frozen=True, kw_only=True)
class Item:
    """An annotated picture; ``boxes`` are left, top, right, bottom as shares of it. ``read``
    returns uint8 pixels (3, side, side), all of the picture, and a float32 audio window (1, mels,
    columns); it raises LeftOutError.
    """

    name: str
    boxes: tuple[Box, ...]
    read: Callable[[], tuple[Tensor, Tensor]]


@dataclass(frozen=True, kw_only=True)
class Annotated:
    """The annotated ``items`` in the annotations' order, the names of those ``without_box``, and
    the ``bad_rows`` of the annotations by reason.
    """

    items: list[Item]
    without_box: list[str]
    bad_rows: Counter[str]


def read_items(
    test_set: LocalisationSet,
    checkpoint: Checkpoint,
    clips: Sequence[IndexedClip],
    read: ReadShard,
) -> Annotated:
    """The items of a test set. Raises DataError for annotations that cannot be read and for a clip
    that is in the index twice.
    """
    path = Path(test_set.path)
    if test_set.annotations == "demo":
        return _demo_items(path, checkpoint, _by_id(clips), read)
    if test_set.annotations == "vggss":
        annotated, bad_rows = read_vggss(path / VGGSS if path.is_dir() else path)
    else:
        annotated, bad_rows = read_flickr_soundnet(path / ANNOTATIONS)
    by_id = {} if path.is_dir() else _by_id(clips)
    items = [
        _item(
            of,
            partial(_read_files, path, checkpoint, of.name)
            if path.is_dir()
            else partial(_read_clip, by_id.get(of.name), checkpoint, read),
        )
        for of in annotated
    ]
    return Annotated(items=items, without_box=[], bad_rows=bad_rows)


def _item(of: SoundBoxes, read: Callable[[], tuple[Tensor, Tensor]]) -> Item:
    return Item(name=of.name, boxes=of.boxes, read=read)


def _by_id(clips: Sequence[IndexedClip]) -> dict[str, IndexedClip]:
    by_id = {clip.clip_id: clip for clip in clips}
    if len(by_id) < len(clips):
        raise DataError("evaluate: the index of clips has a video more than once")
    return by_id


def _demo_items(
    path: Path, checkpoint: Checkpoint, by_id: dict[str, IndexedClip], read: ReadShard
) -> Annotated:
    """Items without a box are those in which nothing that is seen sounds."""
    items, without_box = [], []
    for row in read_table(path, TRUTH_SCHEMA).to_pylist():
        name, of_frames = check_name(row["video_id"], str(path)), row["sounding_boxes"]
        clip = by_id.get(name)
        if not any(of_frames):
            without_box.append(name)
            continue
        frame = _middle(clip)[0] if clip else 1
        if frame > len(of_frames):
            raise DataError(f"{path}: {name} has {len(of_frames)} frames, but its clip has more")
        boxes = SoundBoxes(name=name, boxes=tuple(map(_box, of_frames[frame - 1])))
        items.append(_item(boxes, partial(_read_clip, clip, checkpoint, read)))
    return Annotated(items=items, without_box=without_box, bad_rows=Counter())


def _box(edges: Sequence[float]) -> Box:
    left, top, right, bottom = edges
    if not (0 <= left <= right <= 1 and 0 <= top <= bottom <= 1):
        raise DataError(f"truth.parquet: no box within the frame: {list(edges)}")
    return left, top, right, bottom


def _middle(clip: IndexedClip) -> tuple[int, float]:
    """The middle frame, numbered from 1, and the second on which its sound is centred."""
    seconds = min(clip.sound_s, clip.duration_s) if clip.has_audio else clip.duration_s
    position = middle_position(clip.frames, seconds)
    return position.frame, position.centre_seconds


def _read_clip(
    clip: IndexedClip | None, checkpoint: Checkpoint, read: ReadShard
) -> tuple[Tensor, Tensor]:
    if clip is None:
        raise LeftOutError("not among the extracted test clips")
    if not clip.has_audio:
        raise LeftOutError("without audio")
    frame, centre = _middle(clip)
    windows, _ = read_windows([clip], [centre], checkpoint.audio_front_end, read)
    return read_frame(clip, frame, read), windows[0]


def _read_files(folder: Path, checkpoint: Checkpoint, name: str) -> tuple[Tensor, Tensor]:
    """The window in the middle of the sound."""
    picture = _existing(folder / FRAMES, name, _PICTURES)
    sound = _existing(folder / AUDIO, name, _SOUNDS)
    try:
        small = square(picture.read_bytes(), checkpoint.frame_px)
    except ImageError as error:
        raise LeftOutError("the picture cannot be read") from error
    try:
        windows = audio_windows(sound, checkpoint.audio_front_end)
    except (MediaError, LimitError) as error:
        raise LeftOutError("the sound cannot be read") from error
    return torch.from_numpy(small).permute(2, 0, 1), windows[len(windows) // 2]


def _existing(folder: Path, name: str, endings: Sequence[str]) -> Path:
    for ending in endings:
        if (path := folder / f"{name}{ending}").is_file():
            return path
    raise LeftOutError(f"not in {folder.name}")
