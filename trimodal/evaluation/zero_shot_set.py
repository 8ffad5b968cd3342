"""Params of a test set of kind ``zero_shot``."""

from typing import Literal

from pydantic.dataclasses import dataclass as section_dataclass

from trimodal.core.config import SECTION, Share

Modality = Literal["sound", "picture", "video"]
Labels = Literal["folder", "csv", "esc50", "vggsound", "audioset", "shards"]
CLASSES_OF_DATA = "data"
_WITH_MEDIA = ("csv", "vggsound", "audioset")
_WITH_SPLIT = ("vggsound", "shards")
_OF_SOUND = ("esc50", "vggsound", "audioset")


@section_dataclass(frozen=True, kw_only=True, config=SECTION)
class ZeroShotSet:
    """A zero-shot test set. ``labels`` is the form of the data at ``path``: a ``folder`` of
    subfolders named like classes, a ``csv`` (file, label or labels, perhaps fold), the folder of
    ``esc50``, the CSV of ``vggsound`` or ``audioset``, or the folder of our ``shards``. The files
    that a CSV names are in ``media``. Of shards and VGGSound one ``split`` is taken.

    ``classes`` and ``prompts`` name files of the package or are paths; classes ``data`` are the
    labels of the items themselves. ``audio_weight`` is for videos. At least ``min_coverage`` of
    the items must be usable. A ``linear_probe`` needs one label an item.
    """

    kind: Literal["zero_shot"]
    modality: Modality
    labels: Labels
    path: str
    media: str
    split: Literal["", "train", "val", "test"]
    classes: str
    prompts: str
    audio_weight: Share | None
    linear_probe: bool
    min_coverage: Share

    def __post_init__(self) -> None:
        for key, is_given, is_wanted, of in (
            ("media", bool(self.media), self.labels in _WITH_MEDIA, _WITH_MEDIA),
            ("split", bool(self.split), self.labels in _WITH_SPLIT, _WITH_SPLIT),
            ("audio_weight", self.audio_weight is not None, self.modality == "video", ("video",)),
        ):
            if is_given != is_wanted:
                raise ValueError(
                    f"{key} is {'missing' if is_wanted else 'only'} for {', '.join(of)}"
                )
        if self.labels in _OF_SOUND and self.modality == "picture":
            raise ValueError(f"labels {self.labels} are of sounds, not of modality picture")
