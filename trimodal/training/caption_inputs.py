"""What the image-text stream reads of its captions: word ids, tokens, or features of a frozen
tower; each by the captions' rows in ``captions.parquet``.
"""

import io
from pathlib import Path
from tokenize import TokenError
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from trimodal.core.files import read_table
from trimodal.core.records import DataError
from trimodal.core.schemas import CAPTION_SCHEMA, WORDS
from trimodal.models.text_input import TextInput

Rows = npt.NDArray[np.int64]
_MAKE_AGAIN = "delete it and run dvc repro, which makes it again"


class Captions(Protocol):
    """Reads captions."""

    def rows(self, captions: Rows) -> Tensor:
        """The text network's inputs, (captions, ...)."""


class WordIds:
    """Word ids of the vocabulary, int64 (captions, 16), memory-mapped."""

    def __init__(self, captions_dir: Path) -> None:
        self._path = captions_dir / "token_ids.npy"
        self._ids = memory_map(self._path)

    def __len__(self) -> int:
        return len(self._ids)

    def rows(self, captions: Rows) -> Tensor:
        """See :class:`Captions`."""
        return torch.from_numpy(self._ids[captions].astype(np.int64))

    def __getstate__(self) -> dict[str, Any]:
        return {"_path": self._path}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """A process that was not forked memory-maps the word ids itself."""
        vars(self).update(state)
        self._ids = memory_map(self._path)


class Sentences:
    """Tokens of a tokeniser, int64 (captions, length)."""

    def __init__(self, captions_dir: Path, tokenise: TextInput) -> None:
        table = read_table(captions_dir / "captions.parquet", CAPTION_SCHEMA, columns=["caption"])
        self._sentences, self._tokenise = table["caption"].combine_chunks(), tokenise

    def rows(self, captions: Rows) -> Tensor:
        """See :class:`Captions`."""
        return self._tokenise.encode(self._sentences.take(captions).to_pylist()).ids


def check_token_ids(captions_dir: Path, vocabulary_size: int) -> None:
    """Compares ``token_ids.npy`` with ``captions.parquet``, whose bytes have a checksum. Raises
    DataError, naming the file, if they differ or have an id that no word of the vocabulary has.
    """
    path = captions_dir / "token_ids.npy"
    mapped = memory_map(path)
    column = read_table(captions_dir / "captions.parquet", CAPTION_SCHEMA, columns=["token_ids"])
    stored = column["token_ids"].combine_chunks().flatten().to_numpy().reshape(-1, WORDS)
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": "<i4", "fortran_order": False, "shape": stored.shape}
    )
    with path.open("rb") as file:
        same_header = file.read(len(header.getvalue())) == header.getvalue()
    if not (same_header and np.array_equal(mapped, stored)):
        raise DataError(
            f"{path}: damaged: not the token_ids of captions.parquet beside it; {_MAKE_AGAIN}"
        )
    if stored.size and not 0 <= stored.min() <= stored.max() < vocabulary_size:
        raise DataError(
            f"{path}: ids from {stored.min()} to {stored.max()}, but vocabulary.parquet beside it "
            f"has {vocabulary_size} words; run the captions stage again"
        )


def memory_map(path: Path) -> npt.NDArray[np.int32]:
    """The word ids of ``token_ids.npy``, (captions, 16); raises DataError for anything else."""
    try:
        ids = np.asarray(np.load(path, mmap_mode="r", allow_pickle=False))
    except (ValueError, EOFError, SyntaxError, TokenError) as error:
        raise DataError(f"{path}: not a complete .npy file: {error}; {_MAKE_AGAIN}") from error
    if ids.dtype != np.int32 or ids.shape[1:] != (WORDS,):
        raise DataError(
            f"{path}: {ids.dtype} {ids.shape}, not word ids: int32 (captions, {WORDS}); "
            f"{_MAKE_AGAIN}"
        )
    return ids
