"""Captioned sounds: Clotho's and AudioCaps' CSV files.

- Clotho, ``clotho_captions_evaluation.csv``: file_name, caption_1 to caption_5 (version 2 has more
  columns elsewhere, which are not read).
- AudioCaps, ``test.csv``: audiocap_id, youtube_id, start_time, caption; a row a caption, several
  rows a sound. Sounds are known by their YouTube id and start second, and files are named by either
  or both, as the usual downloaders do.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from trimodal.core.archives import StoredFile, files_by_name
from trimodal.core.progress import log
from trimodal.core.records import DataError, is_youtube_id, reading_text
from trimodal.sources.rows import BadRowError, RowTally, csv_rows

SOUND_SUFFIXES = (
    ".wav", ".flac", ".mp3", ".ogg", ".opus", ".m4a", ".aac", ".mp4", ".webm", ".mkv", ".mov",
    ".avi",
)  # fmt: skip
_CLOTHO = re.compile(r"caption_[0-9]{1,2}")
_AUDIOCAPS = ("audiocap_id", "youtube_id", "start_time", "caption")
_Rows = Iterable[tuple[str, int, list[str]]]


@dataclass(frozen=True, kw_only=True)
class CaptionedSound:
    """A sound, its captions in file order, and the names that its file may have, without their
    endings; ``youtube_id`` is empty where it does not come from there.
    """

    sound_id: str
    file_stems: tuple[str, ...]
    captions: tuple[str, ...]
    youtube_id: str = ""


@dataclass(frozen=True, kw_only=True)
class SoundFile:
    """A captioned sound and its file; None if that is missing."""

    sound: CaptionedSound
    file: StoredFile | None


def read_captioned_sounds(path: Path) -> tuple[list[CaptionedSound], Counter[str]]:
    """The sounds of a CSV in either form, in file order; and the bad rows by reason: names that are
    no plain file names, empty captions, another number of columns, a sound or ``audiocap_id`` that
    occurs twice.

    Raises DataError, naming the file, for another header, more than 1 % bad rows and no sound.
    """
    tally = RowTally(path, "sounds")
    with reading_text(path), path.open(encoding="utf-8-sig", newline="") as lines:
        rows = csv_rows(lines)
        _, _, header = next(rows, ("", 0, []))
        if "file_name" in header and any(map(_CLOTHO.fullmatch, header)):
            sounds = _clotho(_named(rows, header, tally))
        elif set(_AUDIOCAPS) <= set(header):
            sounds = _audiocaps(_named(rows, header, tally))
        else:
            raise DataError(
                f"{path}: neither Clotho's header (file_name, caption_1, ...) nor AudioCaps' "
                f"({', '.join(_AUDIOCAPS)})"
            )
    return sounds, tally.checked(sounds)


_Read = Callable[[], Mapping[str, str]]


def _named(rows: _Rows, header: list[str], tally: RowTally) -> Iterable[tuple[RowTally, _Read]]:
    """A context for each row, and its values by column once inside it."""
    for where, count, row in rows:

        def values(row: list[str] = row) -> Mapping[str, str]:
            if len(row) != len(header):
                raise BadRowError("another number of columns than the header")
            return dict(zip(header, row, strict=True))

        yield tally.row(f"{where} ({row!r:.80})", lines=count), values


def _clotho(rows: Iterable[tuple[RowTally, _Read]]) -> list[CaptionedSound]:
    sounds: dict[str, CaptionedSound] = {}
    for context, read in rows:
        with context:
            row = read()
            name = _file_name(row["file_name"])
            captions = [
                _caption(value) for column, value in row.items() if _CLOTHO.fullmatch(column)
            ]
            if name in sounds:
                raise BadRowError("a sound occurs twice")
            sounds[name] = CaptionedSound(
                sound_id=name, file_stems=(Path(name).stem,), captions=tuple(captions)
            )
    return list(sounds.values())


def _audiocaps(rows: Iterable[tuple[RowTally, _Read]]) -> list[CaptionedSound]:
    captions: dict[tuple[str, int], dict[str, str]] = {}
    seen: set[str] = set()
    for context, read in rows:
        with context:
            row = read()
            if not is_youtube_id(row["youtube_id"]):
                raise BadRowError("no YouTube id")
            start = row["start_time"]
            if not (start.isascii() and start.isdigit() and len(start) <= 6):
                raise BadRowError("start second is no whole number")
            number, caption = row["audiocap_id"], _caption(row["caption"])
            if number in seen:
                raise BadRowError("an audiocap_id occurs twice")
            seen.add(number)
            captions.setdefault((row["youtube_id"], int(start)), {})[number] = caption
    return [
        CaptionedSound(
            sound_id=f"{youtube_id}_{start:06d}",
            file_stems=tuple(
                f"{prefix}{youtube_id}{suffix}"
                for suffix in (f"_{start}", f"_{start:06d}", f"_{1000 * start}", "")
                for prefix in ("", "Y")
            ),
            captions=tuple(numbered.values()),
            youtube_id=youtube_id,
        )
        for (youtube_id, start), numbered in captions.items()
    ]


def _caption(text: str) -> str:
    if not text.strip():
        raise BadRowError("empty caption")
    return text.strip()


def _file_name(text: str) -> str:
    """Clotho's names have spaces and brackets, but no folders."""
    if not text.strip() or "/" in text or "\\" in text or not text.isprintable():
        raise BadRowError("unsafe file name")
    return text


def find_sounds(sounds: Iterable[CaptionedSound], media: Path) -> list[SoundFile]:
    """The file of each sound in a folder, the archives in it, or an archive. Raises DataError if
    there is neither.
    """
    if not media.exists():
        raise DataError(f"{media}: no such folder or archive of sounds")
    files, warnings = files_by_name(media, SOUND_SUFFIXES)
    for warning in warnings:
        log.info(f"evaluate: {warning}")
    by_stem: dict[str, StoredFile] = {}
    for name, file in files.items():
        by_stem.setdefault(Path(name).stem, file)
    found = []
    for sound in sounds:
        stems = [stem for stem in sound.file_stems if stem in by_stem]
        found.append(SoundFile(sound=sound, file=by_stem[stems[0]] if stems else None))
    return found
