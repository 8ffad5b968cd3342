"""The records that travel between stages, checked where they enter."""

import csv
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from trimodal.core.errors import UserError

ClipStatus = Literal[
    "ok",
    "unavailable",
    "private",
    "geo_blocked",
    "bot_check",
    "rate_limited",
    "network",
    "unreadable",
    "corrupt",
    "no_video",
    "no_audio",
    "too_short",
]
# A retry may succeed: this machine could not read an unreadable file, and a corrupt one may have
# been a login page or half copied.
RETRYABLE: frozenset[ClipStatus] = frozenset(
    {"network", "rate_limited", "bot_check", "unreadable", "corrupt"}
)
Split = Literal["train", "val", "test"]

_SAFE_NAME = re.compile(r"[A-Za-z0-9_-]{1,128}")
_UNSAFE_CHARACTER = re.compile(r"[^A-Za-z0-9_-]")
_YOUTUBE_ID = re.compile(r"[A-Za-z0-9_-]{11}")
_SAFE_FILE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,254}")


class DataError(UserError, ValueError):
    """Input that a user can fix; the message names the file, row or key."""


@contextmanager
def reading_text(path: Path) -> Iterator[None]:
    """Turns decoding and CSV errors of a text file into a DataError that names it."""
    try:
        yield
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 text: {error}") from error
    except csv.Error as error:
        raise DataError(f"{path}: not a CSV file: {error}") from error


def check_name(name: str, where: str) -> str:
    """Returns ``name`` if it is safe as a file stem and shard key, else raises DataError."""
    if not _SAFE_NAME.fullmatch(name):
        raise DataError(f"{where}: {name!r} is not a name of letters, digits, '_' and '-'")
    return name


def check_file_name(name: str, where: str) -> str:
    """Returns ``name`` if it is a plain file name, without folders; else raises."""
    if not _SAFE_FILE.fullmatch(name):
        raise DataError(f"{where}: {name!r} is not a plain file name")
    return name


def safe_name(text: str) -> str:
    """``text`` as a name for :func:`check_name`: '_' for every character that it refuses."""
    return _UNSAFE_CHARACTER.sub("_", text)


def is_youtube_id(text: str) -> bool:
    """Whether ``text`` has the form of a YouTube video's id."""
    return _YOUTUBE_ID.fullmatch(text) is not None


@dataclass(frozen=True, kw_only=True)
class Clip:
    """A piece of video that an annotation file lists, before any media is read.

    ``clip_id`` is ``<youtube id>_<start second, 6 digits>`` for VGGSound and the video's name for
    a test video. ``split`` is the source's own; validation clips are split from train later.
    ``youtube_id`` is the video it was cut from; empty if the annotation does not say.
    """

    clip_id: str
    source: Literal["vggsound", "msrvtt", "own"]
    split: Split
    label: str
    youtube_id: str = ""

    def __post_init__(self) -> None:
        check_name(self.clip_id, self.source)
        if self.youtube_id and not is_youtube_id(self.youtube_id):
            raise DataError(f"{self.source}: {self.youtube_id!r} is not a YouTube id")


@dataclass(frozen=True, kw_only=True)
class CaptionedImage:
    """An image file and its captions, in the source's order."""

    image_id: str
    split: Split
    source: Literal["coco", "flickr30k", "flickr8k"]
    file_name: str
    captions: tuple[str, ...]

    def __post_init__(self) -> None:
        check_name(self.image_id, self.source)
        check_file_name(self.file_name, self.source)
        if not self.captions:
            raise DataError(f"{self.source}: image {self.image_id} has no caption")


@dataclass(frozen=True, kw_only=True)
class Query:
    """One retrieval query: a sentence and the video it describes."""

    query_id: str
    video_id: str
    sentence: str

    def __post_init__(self) -> None:
        check_name(self.query_id, "query")
        check_name(self.video_id, "query")
        if not self.sentence.strip():
            raise DataError(f"query {self.query_id}: empty sentence")
