"""How many clips, videos and images the params ask for, from the annotation files."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

from trimodal.core.records import Clip, DataError
from trimodal.core.storage import storage_path
from trimodal.download.demo.world import DemoConfig, sample_world
from trimodal.download.download import DownloadConfig
from trimodal.download.own_videos import videos_in
from trimodal.estimate import Sections, Sizes
from trimodal.sources.image_files import ImageFile, read_coco_files, read_flickr30k_files
from trimodal.sources.msrvtt import read_videos
from trimodal.sources.vggsound import read_vggsound

Item = TypeVar("Item")
Verdict = Literal["ok", "note", "missing"]
_OFFICIAL_VGGSOUND = 183_730  # the train split
_OFFICIAL_MSRVTT = 1000  # 1k-A
_OFFICIAL_COCO = (123_287, 118_287)  # 2017: train and val, train alone
_OFFICIAL_FLICKR30K = (31_783, 31_783)


@dataclass(frozen=True, kw_only=True)
class Finding:
    """The result of one check. ``missing`` stops the pipeline; a ``note`` does not."""

    verdict: Verdict
    name: str
    detail: str


def count_work(sections: Sections, demo: DemoConfig) -> tuple[Sizes, list[Finding]]:
    """The number of items in the annotation files (or in the demo's world); for a file that cannot
    be read, the data set's official size and a finding, by the file's key, that says so.
    """
    if sections.download.source == "demo":
        world = sample_world(demo)
        train_images = len(world.images_coco_train + world.images_flickr)
        sizes = Sizes(
            train_clips=len(world.train),
            test_videos=len(world.test),
            images=train_images + len(world.images_coco_val),
            train_images=train_images,
        )
        return sizes, []
    download, captions = sections.download, sections.captions
    unreadable: list[Finding] = []

    def read(
        name: str, official: int, reader: Callable[[], tuple[list[Item], Any]]
    ) -> list[Item] | None:
        try:
            return reader()[0]
        except (DataError, OSError) as error:
            detail = f"{error}; the estimate uses the official {official:,}"
            unreadable.append(Finding(verdict="missing", name=name, detail=detail))
            return None

    def images(files: list[ImageFile] | None, official: tuple[int, int]) -> tuple[int, int]:
        """Number of all images and of training images."""
        if files is None:
            return official
        return len(files), sum(file.image.split == "train" for file in files)

    coco = images(
        read(
            "captions.coco",
            _OFFICIAL_COCO[0],
            lambda: read_coco_files(Path(captions.coco), captions.coco_annotations),
        ),
        _OFFICIAL_COCO,
    )
    flickr30k = images(
        read(
            "captions.flickr30k",
            _OFFICIAL_FLICKR30K[0],
            lambda: read_flickr30k_files(
                Path(captions.flickr30k),
                captions.flickr30k_annotations,
                captions.flickr30k_held_out,
            ),
        ),
        _OFFICIAL_FLICKR30K,
    )
    list_of_clips = "vggsound_media" if download.source == "videos" else "vggsound_csv"
    clips = read(f"download.{list_of_clips}", _OFFICIAL_VGGSOUND, lambda: _training_clips(download))
    videos: list[Clip] | None = []
    if download.msrvtt_csv:
        videos = read(
            "download.msrvtt_csv", _OFFICIAL_MSRVTT, lambda: read_videos(Path(download.msrvtt_csv))
        )
    sizes = Sizes(
        train_clips=_OFFICIAL_VGGSOUND if clips is None else len(clips),
        test_videos=_OFFICIAL_MSRVTT if videos is None else len(videos),
        images=coco[0] + flickr30k[0],
        train_images=coco[1] + flickr30k[1],
    )
    return sizes, unreadable


def _training_clips(download: DownloadConfig) -> tuple[list[Any], Any]:
    if download.source == "videos":
        folder = storage_path(download.vggsound_media)
        return list(videos_in(folder)) if folder.exists() else [], None  # the doctor names it
    return read_vggsound(Path(download.vggsound_csv), download.vggsound_splits)
