"""What the samples in shards say about themselves (docs/shards.md): ``<clip_id>.json``, with all
that is needed to cut an audio window from a clip's mel, and ``<image_id>.json``.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field, NonNegativeFloat
from pydantic.dataclasses import dataclass

from trimodal.core.config import SECTION, ConfigError, parse_section
from trimodal.core.records import CaptionedImage, DataError
from trimodal.core.timing import frame_centre_seconds
from trimodal.media.mel import DEPTH_DB, FLOOR_DB, STEP_DB, MelConfig, StoredMel

CLIP_FORMAT: Literal["trimodal clip"] = "trimodal clip"
CLIP_FORMAT_VERSION: Literal[2] = 2
IMAGE_FORMAT = "trimodal image"
IMAGE_FORMAT_VERSION = 1
_METADATA = "trimodal"


@dataclass(frozen=True, kw_only=True, config=SECTION)
class MelDescription(MelConfig):
    """How the mel was made, section ``mel``, and what its values mean: a code c of a column stands
    for ``top_db - (255 - c) * step_db`` dB of power, within ``depth_db`` below the
    column's maximum; beyond the clip there is silence of ``floor_db``.
    """

    scale: Literal["slaney"] = "slaney"
    norm: Literal["slaney"] = "slaney"
    step_db: float = STEP_DB
    depth_db: float = DEPTH_DB
    floor_db: float = FLOOR_DB

    @property
    def config(self) -> MelConfig:
        """Section ``mel`` alone."""
        return MelConfig(**{field.name: getattr(self, field.name) for field in fields(MelConfig)})

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, known in (("step_db", STEP_DB), ("depth_db", DEPTH_DB), ("floor_db", FLOOR_DB)):
            if getattr(self, name) != known:
                raise ValueError(f"{name} is {getattr(self, name)}, not {known}")


@dataclass(frozen=True, kw_only=True, config=SECTION)
class ClipDescription:
    """Lengths and times are in seconds; ``frame_times_s`` has the time that each frame shows;
    ``gaps`` says what a transport stream has lost.
    """

    format: Literal["trimodal clip"] = CLIP_FORMAT
    format_version: Literal[2] = CLIP_FORMAT_VERSION
    label: str
    duration_s: NonNegativeFloat
    frame_times_s: Annotated[list[float], Field(min_length=1)]
    has_audio: bool
    audio_s: NonNegativeFloat
    gaps: str = ""
    mel: MelDescription


def describe_clip(
    label: str,
    duration_s: float,
    frames: int,
    audio_s: float,
    mel: MelConfig,
    columns: int,
    gaps: str = "",
) -> dict[str, Any]:
    """The description of a clip with ``frames`` frames and ``columns`` mel columns, as JSON."""
    return asdict(
        ClipDescription(
            label=label,
            duration_s=duration_s,
            frame_times_s=[frame_centre_seconds(number) for number in range(1, frames + 1)],
            has_audio=columns > 0,
            audio_s=audio_s,
            gaps=gaps,
            mel=MelDescription(**asdict(mel)),
        )
    )


def parse_image(description: Any, where: str) -> list[str]:
    """The captions in an image's JSON. Raises DataError, with ``where`` and the key, for another
    format version and for what is not an image of ours.
    """
    _check_format(description, where, IMAGE_FORMAT, IMAGE_FORMAT_VERSION, "captions")
    captions = description.get("captions")
    if not isinstance(captions, list) or not captions or not all(map(_is_text, captions)):
        raise DataError(f"{where}: captions are not a list of texts")
    return captions


def _check_format(description: Any, where: str, name: str, version: int, stage: str) -> None:
    if not isinstance(description, dict) or description.get("format") != name:
        raise DataError(f"{where}: format is not {name!r}: not a sample of the {stage} stage")
    if (found := description.get("format_version")) != version:
        raise DataError(
            f"{where}: format_version is {found!r}, not {version}; run the {stage} stage of this "
            "version"
        )


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def index_metadata(mel: MelConfig) -> dict[str, str]:
    """What an index says of the mels in its shards, as metadata of its Parquet schema."""
    description = asdict(MelDescription(**asdict(mel)))
    content = {"format": CLIP_FORMAT, "format_version": CLIP_FORMAT_VERSION, **description}
    return {_METADATA: json.dumps(content)}


def check_index_metadata(path: Path, metadata: Mapping[bytes, bytes], mel: MelConfig) -> None:
    """Raises DataError, naming the index at ``path`` and the key, if the metadata of its schema are
    not those of ``mel`` and this version.
    """
    try:
        stored = json.loads(metadata.get(_METADATA.encode(), b"{}"))
    except ValueError as error:
        raise DataError(f"{path}: its metadata are damaged: {error}") from error
    for key, value in json.loads(index_metadata(mel)[_METADATA]).items():
        found = stored.get(key) if isinstance(stored, dict) else stored
        if found != value:
            raise DataError(
                f"{path}: {key} is {found!r}, but params and this version have {value!r}; run the "
                "extract stage again"
            )


def describe_image(image: CaptionedImage) -> dict[str, Any]:
    """The description of an image and its captions, as JSON."""
    return {
        "format": IMAGE_FORMAT,
        "format_version": IMAGE_FORMAT_VERSION,
        "source": image.source,
        "captions": list(image.captions),
    }


def parse_clip(description: Any, where: str) -> ClipDescription:
    """A clip's JSON, checked. Raises DataError, with ``where`` and the key, for another format
    version, another meaning of the mel's values, and for what is not a clip of ours.
    """
    _check_format(description, where, CLIP_FORMAT, CLIP_FORMAT_VERSION, "extract")
    try:
        return parse_section(description, where, ClipDescription)
    except ConfigError as error:
        raise DataError(str(error)) from error


def parse_mel(
    codes: npt.NDArray[Any], top_db: npt.NDArray[Any], clip: ClipDescription, where: str
) -> StoredMel:
    """A clip's ``mel.npy`` and ``mel_top_db.npy``, checked against its description. Raises
    DataError, with ``where`` and the member, for other types and shapes.
    """
    if codes.dtype != np.uint8 or codes.ndim != 2 or codes.shape[1] != clip.mel.mels:
        raise DataError(
            f"{where}.mel.npy: {codes.dtype} {codes.shape}, but its json says mel.mels "
            f"{clip.mel.mels}: uint8 (columns, {clip.mel.mels})"
        )
    if top_db.dtype != np.float16 or top_db.shape != codes.shape[:1]:
        raise DataError(
            f"{where}.mel_top_db.npy: {top_db.dtype} {top_db.shape}, not float16 "
            f"{codes.shape[:1]}, one for each column of mel.npy"
        )
    if clip.has_audio != (len(top_db) > 0):
        raise DataError(f"{where}.mel.npy: {len(top_db)} columns, has_audio {clip.has_audio}")
    return StoredMel(codes, top_db)
