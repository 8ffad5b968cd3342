"""The image-text stream: pairs of an image and one of its captions."""

from collections.abc import Sequence
from copy import copy
from pathlib import Path
from typing import Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from torch import Tensor
from torch.utils.data import Dataset

from trimodal.core.files import read_table
from trimodal.core.records import DataError, Split, check_file_name
from trimodal.core.schemas import CAPTION_SCHEMA, IMAGE_SCHEMA
from trimodal.core.shards import read_extents
from trimodal.data.augment import VIEW_FIELDS, random_fields
from trimodal.data.readers import Pair, read_image
from trimodal.data.shard_files import ReadShard, shard_fingerprints
from trimodal.features.store import FeatureStore
from trimodal.models.preprocessing import AugmentConfig
from trimodal.models.text_input import TextInput
from trimodal.training.caption_inputs import Captions, Sentences, WordIds
from trimodal.training.pictures import FeaturesOfPictures, Pictures, StoredPictures
from trimodal.training.random_streams import RandomFields, RandomStream, SampleIndex

_FIELDS = random_fields("caption", *VIEW_FIELDS)


class _CaptionedImages:
    """The images of a split that have captions, as columns: the offset of each image in its shard,
    and the rows of its captions, ``_first_caption`` to before ``_captions_end``.
    """

    def __init__(
        self,
        captions_dir: Path,
        images_dir: Path,
        split: Split,
        augment: AugmentConfig,
        *,
        read: ReadShard = read_extents,
        tokenise: TextInput | None = None,
        features: FeatureStore | None = None,
    ) -> None:
        """``tokenise`` turns sentences into the text network's tokens; None: it takes word ids.
        ``features`` take the place of what frozen towers would be given. Raises DataError if the
        files of ``captions_dir``, ``images_dir`` and ``features`` do not belong together.
        """
        self._augment, self._read_shard = augment, read
        word_ids = WordIds(captions_dir)
        self._tokens: Captions = Sentences(captions_dir, tokenise) if tokenise else word_ids
        self._captions: Captions = self._tokens
        if features and features.has("text"):
            self._captions = features.captions(captions_dir / "captions.parquet")
        path = images_dir / "index.parquet"
        images = read_table(path, IMAGE_SCHEMA, filters=pc.field("split") == split).combine_chunks()
        for name in images["shard"].unique().to_pylist():
            check_file_name(name, str(path))
        captioned = _captioned_images(captions_dir, len(word_ids))
        rows = pc.index_in(images["image_id"], captioned.values)
        chosen = pc.is_valid(rows).to_numpy()
        rows = rows.drop_null().to_numpy()
        ends = captioned.run_ends.to_numpy()
        self._captions_end: npt.NDArray[np.int32] = ends[rows]
        self._first_caption = np.concatenate([np.zeros(1, np.int32), ends])[rows]
        shards = pa.concat_arrays(images["shard"].chunks).dictionary_encode()
        self._shards = [images_dir / name for name in shards.dictionary.to_pylist()]
        shard_of: npt.NDArray[np.int32] = shards.indices.to_numpy()
        self._shard_of: npt.NDArray[np.int32] = shard_of[chosen]
        self._offsets = images["offset"].to_numpy()[chosen]
        self._sizes = images["size"].to_numpy()[chosen]
        self._pictures: Pictures = StoredPictures(self._decoded, augment)
        if features and features.has("image"):
            counts = np.bincount(shard_of, minlength=len(self._shards)).tolist()
            fingerprints = shard_fingerprints(images_dir, images)
            stored = features.pictures("images", self._shards, fingerprints, counts)
            place = _number_in_group(shard_of)[chosen]
            self._pictures = FeaturesOfPictures(stored, self._shard_of, place)

    def __len__(self) -> int:
        return len(self._first_caption)

    @property
    def shard_of(self) -> npt.NDArray[np.int32]:
        """The number of each image's shard, (images,)."""
        return self._shard_of

    def thawed(self) -> Self:
        """The same samples, with pixels and tokens."""
        thawed = copy(self)
        thawed._pictures = StoredPictures(thawed._decoded, self._augment)
        thawed._captions = self._tokens
        return thawed

    def _decoded(self, row: int, _number: int) -> Tensor:
        shard, offset, size = self._shard_of[row], self._offsets[row], self._sizes[row]
        return read_image(self._shards[shard], int(offset), int(size), self._read_shard)


class ImageTextPairs(_CaptionedImages, Dataset[Pair]):
    """For training: an image and one of its captions, uint8 (3, crop, crop) and int64 (16,) word
    ids or (length,) tokens, or float16 (features,) of frozen towers. In each round the caption is
    drawn at random and the image augmented.
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
        tokenise: TextInput | None = None,
        features: FeatureStore | None = None,
    ) -> None:
        super().__init__(
            captions_dir,
            images_dir,
            split,
            augment,
            read=read,
            tokenise=tokenise,
            features=features,
        )
        self._views = RandomFields(RandomStream.IMAGE_VIEWS, seed, len(self), _FIELDS)

    def __getitem__(self, index: SampleIndex) -> Pair:
        images, captions = self.__getitems__([index])
        return images[0], captions[0]

    def __getitems__(self, indices: Sequence[SampleIndex]) -> Pair:
        """Samples of one round, stacked."""
        samples = np.array([index.sample for index in indices])
        random = self._views.of(indices)
        images = self._pictures.training(samples, np.zeros_like(samples), random)
        first = self._first_caption[samples]
        captions = self._captions_end[samples] - first
        rows = first + (random["caption"] * captions).astype(np.int64)
        return images, self._captions.rows(rows)


class ImageTextValidation(_CaptionedImages, Dataset[Pair]):
    """For validation, without randomness: an image's centre and its first caption, as
    :class:`ImageTextPairs`.
    """

    def __getitem__(self, row: int) -> Pair:
        images, captions = self.__getitems__([row])
        return images[0], captions[0]

    def __getitems__(self, rows: Sequence[int]) -> Pair:
        """Samples, stacked."""
        samples = np.array(rows)
        images = self._pictures.validation(samples, np.zeros_like(samples))
        return images, self._captions.rows(self._first_caption[samples])


def has_captions(captions_dir: Path) -> bool:
    """Whether the captions stage was given any."""
    return len(WordIds(captions_dir)) > 0


def _number_in_group(groups: npt.NDArray[np.int32]) -> npt.NDArray[np.int64]:
    """How many of the rows before each one are of its group, (rows,)."""
    order = np.argsort(groups, kind="stable")
    ordered = groups[order]
    numbers = np.empty(len(groups), np.int64)
    numbers[order] = np.arange(len(groups)) - np.searchsorted(ordered, ordered)
    return numbers


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
