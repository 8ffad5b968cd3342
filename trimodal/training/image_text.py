"""The image-text stream: pairs of an image and one of its captions."""

import io
from collections.abc import Sequence
from pathlib import Path
from tokenize import TokenError
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import torch
from torch import Tensor
from torch.utils.data import Dataset

from trimodal.core.files import read_table
from trimodal.core.records import DataError, Split, check_file_name
from trimodal.core.schemas import CAPTION_SCHEMA, IMAGE_SCHEMA, WORDS
from trimodal.core.shards import read_extents
from trimodal.data.readers import Pair, read_image
from trimodal.data.shard_files import ReadShard
from trimodal.models.preprocessing import AugmentConfig, centre_views
from trimodal.training.augment import VIEW_FIELDS, training_views
from trimodal.training.random_streams import (
    RandomFields,
    RandomStream,
    SampleIndex,
    random_fields,
)

_FIELDS = random_fields("caption", *VIEW_FIELDS)
_MAKE_AGAIN = "delete it and run dvc repro, which makes it again"


class _CaptionedImages:
    """The images of a split that have captions, as columns: the offset of each image in its shard,
    and the rows of its captions, ``_first_caption`` to before ``_captions_end``. Raises DataError
    if the files of ``captions_dir`` and ``images_dir`` do not belong together.
    """

    def __init__(self, captions_dir: Path, images_dir: Path, split: Split, read: ReadShard) -> None:
        self._ids_path = captions_dir / "token_ids.npy"
        self._token_ids = _memory_map(self._ids_path)
        in_split = pc.field("split") == split
        path = images_dir / "index.parquet"
        images = read_table(path, IMAGE_SCHEMA, filters=in_split)
        for name in images["shard"].unique().to_pylist():
            check_file_name(name, str(path))
        self._read_shard = read
        captioned = _captioned_images(captions_dir, len(self._token_ids))
        rows = pc.index_in(images["image_id"], captioned.values)
        images = images.filter(pc.is_valid(rows)).combine_chunks()
        rows = rows.drop_null().to_numpy()
        ends = captioned.run_ends.to_numpy()
        self._captions_end: npt.NDArray[np.int32] = ends[rows]
        self._first_caption = np.concatenate([np.zeros(1, np.int32), ends])[rows]
        shards = images["shard"].combine_chunks().dictionary_encode()
        self._shards = [images_dir / name for name in shards.dictionary.to_pylist()]
        self._shard_of: npt.NDArray[np.int32] = shards.indices.to_numpy()
        self._offsets = images["offset"].to_numpy()
        self._sizes = images["size"].to_numpy()

    def __len__(self) -> int:
        return len(self._first_caption)

    @property
    def shard_of(self) -> npt.NDArray[np.int32]:
        """The number of each image's shard, (images,)."""
        return self._shard_of

    def _images(self, samples: npt.NDArray[np.int64]) -> list[Tensor]:
        extents = zip(
            self._shard_of[samples].tolist(),
            self._offsets[samples].tolist(),
            self._sizes[samples].tolist(),
            strict=True,
        )
        return [
            read_image(self._shards[shard], start, size, self._read_shard)
            for shard, start, size in extents
        ]

    def _captions(self, rows: npt.NDArray[np.int64]) -> Tensor:
        return torch.from_numpy(self._token_ids[rows].astype(np.int64))

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "_token_ids"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """A process that was not forked memory-maps the word ids itself."""
        vars(self).update(state)
        self._token_ids = _memory_map(self._ids_path)


class ImageTextPairs(_CaptionedImages, Dataset[Pair]):
    """For training: an image and one of its captions, uint8 (3, crop, crop) and int64 (16,) word
    ids. In each round the caption is drawn at random and the image augmented.
    """

    def __init__(
        self,
        captions_dir: Path,
        images_dir: Path,
        split: Split,
        augment: AugmentConfig,
        seed: int,
        *,
        read: ReadShard = read_extents,
    ) -> None:
        super().__init__(captions_dir, images_dir, split, read)
        self._augment = augment
        self._views = RandomFields(RandomStream.IMAGE_VIEWS, seed, len(self), _FIELDS)

    def __getitem__(self, index: SampleIndex) -> Pair:
        views, token_ids = self.__getitems__([index])
        return views[0], token_ids[0]

    def __getitems__(self, indices: Sequence[SampleIndex]) -> Pair:
        """Samples of one round: uint8 (indices, 3, crop, crop), int64 (indices, 16)."""
        samples = np.array([index.sample for index in indices])
        images = self._images(samples)
        random = self._views.of(indices)
        first = self._first_caption[samples]
        captions = self._captions_end[samples] - first
        rows = first + (random["caption"] * captions).astype(np.int64)
        return training_views(images, self._augment, random), self._captions(rows)


class ImageTextValidation(_CaptionedImages, Dataset[Pair]):
    """For validation, without randomness: an image and its first caption, uint8 (3, crop, crop) and
    int64 (16,) word ids.
    """

    def __init__(
        self,
        captions_dir: Path,
        images_dir: Path,
        split: Split,
        augment: AugmentConfig,
        *,
        read: ReadShard = read_extents,
    ) -> None:
        super().__init__(captions_dir, images_dir, split, read)
        self._augment = augment

    def __getitem__(self, row: int) -> Pair:
        views, token_ids = self.__getitems__([row])
        return views[0], token_ids[0]

    def __getitems__(self, rows: Sequence[int]) -> Pair:
        """Uint8 (rows, 3, crop, crop), int64 (rows, 16)."""
        samples = np.array(rows)
        views = centre_views(self._images(samples), self._augment)
        return views, self._captions(self._first_caption[samples])


def check_token_ids(captions_dir: Path, vocabulary_size: int) -> None:
    """Compares ``token_ids.npy`` with ``captions.parquet``, whose bytes have a checksum. Raises
    DataError, naming the file, if they differ or have an id that no word of the vocabulary has.
    """
    path = captions_dir / "token_ids.npy"
    mapped = _memory_map(path)
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


def _memory_map(path: Path) -> npt.NDArray[np.int32]:
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


def _captioned_images(captions_dir: Path, captions: int) -> pa.RunEndEncodedArray:
    """The image ids of ``captions.parquet``, each once, with the row after its last caption."""
    path = captions_dir / "captions.parquet"
    names = read_table(path, CAPTION_SCHEMA, columns=["image_id"])["image_id"]
    if len(names) != captions:
        raise DataError(
            f"{path} has {len(names)} captions, but token_ids.npy beside it {captions}; "
            "run the captions stage again"
        )
    return pc.run_end_encode(pa.concat_arrays(names.chunks), run_end_type=pa.int32())
