"""What users hand to a model: one or many sentences, images, sounds and videos."""

import os
import warnings
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, TypeGuard, get_args

import numpy as np
import numpy.typing as npt
from torch import Tensor

from trimodal.core.errors import UserError
from trimodal.core.schemas import WORDS
from trimodal.core.text import Vocabulary

if TYPE_CHECKING:
    from PIL.Image import Image

    from trimodal.media.audio_windows import Waveform

Modality = Literal["text", "image", "audio", "video"]
# A file, or uint8 (height, width, 3) RGB.
Picture: TypeAlias = "str | Path | npt.NDArray[np.uint8] | Image"
# A file; samples and their rate in Hz; or windows, (windows, 1, mels, columns).
Sound: TypeAlias = "str | Path | Waveform | tuple[npt.NDArray[np.generic], float] | Tensor"
Video: TypeAlias = str | Path
AnyInput: TypeAlias = "Picture | Sound"


class QueryError(UserError, ValueError):
    """An input the model cannot embed: no known word, or not an image."""


class UnknownWordWarning(UserWarning):
    """Words of a sentence that have no vector: they do not count, or their spelling gives one."""


def as_list(inputs: Any) -> tuple[list[Any], bool]:
    """The inputs as a list, and whether it was one alone. Text is never a list of letters, nor an
    array one of rows; an array of (images, height, width, 3) is one of images.
    """
    if _is_one(inputs):
        return [inputs], True
    return list(inputs), False


def _is_one(inputs: Any) -> bool:
    if isinstance(inputs, np.ndarray):
        return inputs.dtype.kind not in "OSU" and inputs.ndim != 4
    return (
        isinstance(inputs, str | bytes | os.PathLike | Tensor)
        or is_samples(inputs)
        or not isinstance(inputs, Iterable)
    )


def is_samples(value: Any) -> TypeGuard[tuple[npt.NDArray[np.generic], float]]:
    """Whether a value is a pair of samples and their rate."""
    return (
        isinstance(value, tuple)
        and len(value) == 2
        and isinstance(value[0], np.ndarray)
        and isinstance(value[1], int | float | np.number)
    )


def modality_of(value: Any) -> Modality:
    """The modality of one input: text is a sentence, a Path what its name ends with. Raises
    QueryError where that does not tell, and for text that names a media file.
    """
    if isinstance(value, str):
        if _of_suffix(value) and _is_file(value):
            raise QueryError(
                f"{value!r} is a sentence and a file: give a Path, or say modality='text'"
            )
        return "text"
    if isinstance(value, os.PathLike):
        if kind := _of_suffix(os.fspath(value)):
            return kind
        raise QueryError(f"{value}: of what modality? Its name does not tell; say modality=...")
    if isinstance(value, np.ndarray):
        return "image"  # a sound is samples with their rate
    from PIL import Image

    return "image" if isinstance(value, Image.Image) else "audio"


def _is_file(text: str) -> bool:
    with suppress(OSError, ValueError):  # too long for a name, or with a null character
        return Path(text).is_file()
    return False


def check_modality(modality: str) -> None:
    """Raises QueryError for a name that is none of a modality."""
    if modality not in get_args(Modality):
        raise QueryError(f"modality {modality!r}: is one of {', '.join(get_args(Modality))}")


def _of_suffix(path: str) -> Modality | None:
    from trimodal.sources.labelled_files import PICTURE_SUFFIXES, SOUND_SUFFIXES, VIDEO_SUFFIXES

    suffixes: dict[Modality, Sequence[str]] = {
        "image": PICTURE_SUFFIXES, "video": VIDEO_SUFFIXES, "audio": SOUND_SUFFIXES,
    }  # fmt: skip
    ending = Path(path).suffix.lower()
    return next((kind for kind, endings in suffixes.items() if ending in endings), None)


def as_file(value: Any, what: str) -> Path:
    """A file's path; raises QueryError for what is neither text nor a path."""
    if not isinstance(value, str | os.PathLike):
        raise QueryError(f"not {what}: {_shown(value)}")
    return Path(value)


def check_sentence(sentence: Any, known: Vocabulary | None) -> None:
    """Warns about words of a sentence without a vector, on behalf of the caller's caller. Raises
    QueryError for one without any word that counts, and for what is not text. A tower's own
    tokeniser (None) knows every word.
    """
    if not isinstance(sentence, str):
        raise QueryError(f"not a sentence: {_shown(sentence)}")
    if known is None:
        if not sentence.strip():
            raise QueryError("an empty sentence")
        return
    words = known.tokeniser.words(sentence)[:WORDS]
    unknown = [w for w in words if w not in known and known.spelling(w) is None]
    spelled = [w for w in words if w not in unknown and (w in known.spelled or w not in known)]
    problem = f"words without a vector: {', '.join(unknown)}" if unknown else "only stop words"
    if len(unknown) == len(words):
        raise QueryError(f"{sentence!r} has no word that the model knows: {problem}")
    notes = [problem] if unknown else []
    if spelled:
        notes.append(f"no vector for {', '.join(spelled)}: taken from the spelling")
    if notes:
        warnings.warn(f"{sentence!r}: {'; '.join(notes)}", UnknownWordWarning, stacklevel=3)


def image_pixels(image: "npt.NDArray[np.uint8] | Image") -> npt.NDArray[np.uint8]:
    """An array's or Pillow image's pixels, uint8 (height, width, 3) RGB: upright by its metadata,
    on white where it is transparent. Raises QueryError for anything else.
    """
    from PIL import Image, ImageOps

    if isinstance(image, np.ndarray):
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
            raise QueryError(
                f"not an image: {_shown(image)}; an image is uint8 (height, width, 3), a sound "
                "(samples, rate)"
            )
        return image
    if not isinstance(image, Image.Image):
        raise QueryError(f"not an image: {_shown(image)}")
    if image.mode.startswith(("I", "F")):
        raise QueryError(f"an image of mode {image.mode}: convert it to 8 bits")
    upright = ImageOps.exif_transpose(image)
    if upright.has_transparency_data:
        upright = Image.alpha_composite(
            Image.new("RGBA", upright.size, "white"), upright.convert("RGBA")
        )
    pixels: npt.NDArray[np.uint8] = np.array(upright.convert("RGB"))
    return pixels


def _shown(value: Any) -> str:
    if isinstance(value, np.ndarray | Tensor):
        return f"an array of shape {tuple(value.shape)}, {value.dtype}"
    return f"{type(value).__name__} {str(value)[:60]!r}"
