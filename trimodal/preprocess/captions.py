"""Stage ``captions``: caption data sets to Parquet and image shards, all the image-text data."""

import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field, NonNegativeInt, PositiveInt
from pydantic.dataclasses import dataclass as section_dataclass

from trimodal.core.config import SECTION, JpegQuality, Share
from trimodal.core.coverage import check_coverage
from trimodal.core.files import remove, write_json
from trimodal.core.language import nltk_tokenise, tokeniser_of
from trimodal.core.machine import MachineConfig
from trimodal.core.progress import bar, log, summary_line
from trimodal.core.records import CaptionedImage, DataError
from trimodal.core.schemas import VECTOR_DIM
from trimodal.core.subwords import fit_subwords
from trimodal.core.text import Tokeniser, Vocabulary, build_vocabulary, write_vocabulary
from trimodal.media.image import ExifOrientation
from trimodal.preprocess.caption_table import CaptionColumns, caption_columns, write_captions
from trimodal.preprocess.image_shards import ImageFormat
from trimodal.preprocess.images import write_images
from trimodal.sources.image_files import (
    Annotations,
    FlickrAnnotations,
    ImageFile,
    read_coco_files,
    read_flickr30k_files,
)
from trimodal.sources.word2vec import read_vectors


@section_dataclass(frozen=True, kw_only=True, config=SECTION)
class CaptionsConfig:
    """Section ``captions``. ``coco`` and ``flickr30k`` are folders with annotations and images
    (file names: trimodal.sources), ``vectors`` is a file in one of word2vec's formats
    (trimodal.sources.word2vec). The annotations are the data set's own or Karpathy's; of ``none``
    nothing is read; ``splits`` of Flickr30k is a splits.csv beside results.csv, whose train split
    is used. ``flickr30k_held_out`` of its training images are for validation. With none at all
    there are no captions, images or vocabulary, ``vectors`` is not read, and the text network must
    be frozen. At least ``min_coverage`` of the images they name must be usable. ``language`` is
    that of captions, vectors and queries: one for which NLTK has stop words. The vocabulary has the
    captions' words and the first ``frequent_words`` rows of the vector file. Of words without a
    vector, ``unknown_words`` says what becomes of them, in captions and in queries: they do not
    count, and a query of nothing else is an ``error``; or they get the vector that their spelling
    suggests (``subword``: trimodal.core.subwords). Those that still have none and occur at least
    ``learned_words`` times in the captions get a zero vector, to be learned (``model.word_vectors:
    trained``); 0 disables this. Images are stored as ``image_px`` x ``image_px``, turned upright
    unless ``exif_orientation`` is ignored.
    """

    coco: str
    coco_annotations: Annotations
    flickr30k: str
    flickr30k_annotations: FlickrAnnotations
    flickr30k_held_out: NonNegativeInt
    language: str
    vectors: str
    frequent_words: NonNegativeInt
    unknown_words: Literal["error", "subword"]
    learned_words: NonNegativeInt
    image_px: Annotated[int, Field(ge=2)]
    jpeg_quality: JpegQuality
    exif_orientation: ExifOrientation
    images_per_shard: PositiveInt
    min_coverage: Share

    @property
    def reads_any(self) -> bool:
        """Whether there are captions at all."""
        return not self.coco_annotations == self.flickr30k_annotations == "none"


def prepare_captions(
    config: CaptionsConfig, captions_dir: Path, images_dir: Path, machine: MachineConfig
) -> None:
    """Writes ``captions.parquet`` with ``token_ids.npy``, ``vocabulary.parquet`` and ``stats.json``
    into ``captions_dir`` and the images' shards with ``index.parquet`` into ``images_dir``.

    Left out and counted: bad rows, images without captions, of a test split or whose file is
    missing or broken, captions of stop words only. Raises DataError if a split has nothing left.
    Where both annotations are ``none``, the tables have no rows and there is no vocabulary.
    """
    if not config.reads_any:
        _write_no_captions(config, captions_dir, images_dir, machine)
        return
    tokeniser = tokeniser_of(config.language)
    files, left_out = _read_sources(config)
    images, size = _store_images(files, images_dir, config, left_out, machine)
    _check_splits("usable image", _by_source_and_split(images), left_out)
    del files
    columns, empty = caption_columns(
        bar(images, task="reading captions", unit="images"), nltk_tokenise(tokeniser)
    )
    if empty:
        left_out["caption of stop words alone"] = empty
    _check_splits("caption with words", columns.split_counts(), left_out)
    vocabulary, has_vector = _vocabulary(config, columns, tokeniser)
    write_captions(captions_dir, columns, vocabulary)
    write_vocabulary(captions_dir / "vocabulary.parquet", vocabulary)
    image_counts = _by_source_and_split(images)
    occurrences = columns.word_counts()
    spelled = len(vocabulary.spelled)
    learned = sum(w in vocabulary for w in columns.words) - int(has_vector.sum()) - spelled
    unknown_words = 1 - float(has_vector.mean())
    unknown_tokens = int(occurrences[~has_vector].sum()) / int(occurrences.sum())
    write_json(
        captions_dir / "stats.json",
        {
            "images": image_counts,
            "captions": columns.split_counts(),
            "words": len(columns.words),
            "words_with_vector": int(has_vector.sum()),
            "spelled_words": spelled,
            "learned_words": learned,
            "further_words": len(vocabulary.words) - 2 - int(has_vector.sum()) - spelled - learned,
            "unknown_word_share": unknown_words,
            "unknown_token_share": unknown_tokens,
            "left_out": dict(sorted(left_out.items())),
        },
    )
    summary = (
        f"captions: {len(columns.captions)} captions of {len(images)} images "
        f"({size / 1e6:.1f} MB; {_format_counts(image_counts)}); "
        f"{len(columns.words)} words; without a vector: {100 * unknown_words:.1f} % of words, "
        f"{100 * unknown_tokens:.1f} % of tokens"
    )
    log.info(summary_line(summary, left_out))


def _write_no_captions(
    config: CaptionsConfig, captions_dir: Path, images_dir: Path, machine: MachineConfig
) -> None:
    write_images([], images_dir, _image_format(config), machine)
    remove(captions_dir / "vocabulary.parquet")
    write_captions(captions_dir, CaptionColumns(), None)
    write_json(captions_dir / "stats.json", {"images": {}, "captions": {}, "left_out": {}})
    log.info("captions: none (captions.coco_annotations, captions.flickr30k_annotations)")


def _read_sources(config: CaptionsConfig) -> tuple[list[ImageFile], Counter[str]]:
    coco, coco_left_out = read_coco_files(Path(config.coco), config.coco_annotations)
    flickr30k, flickr30k_left_out = read_flickr30k_files(
        Path(config.flickr30k), config.flickr30k_annotations, config.flickr30k_held_out
    )
    return coco + flickr30k, coco_left_out + flickr30k_left_out


def _store_images(
    files: Sequence[ImageFile],
    images_dir: Path,
    config: CaptionsConfig,
    left_out: Counter[str],
    machine: MachineConfig,
) -> tuple[list[CaptionedImage], int]:
    """The images that could be stored, in order, and their size in bytes; counts the rest."""
    done = write_images(files, images_dir, _image_format(config), machine)
    check_coverage(
        "captions", "images", len(done.rows), done.left_out, required=config.min_coverage,
        param="captions.min_coverage", examples=done.examples,
    )  # fmt: skip
    left_out.update(done.left_out)
    stored = {row["image_id"] for row in done.rows}
    images = [file.image for file in files if file.image.image_id in stored]
    return images, done.bytes


def _image_format(config: CaptionsConfig) -> ImageFormat:
    return ImageFormat(
        px=config.image_px,
        jpeg_quality=config.jpeg_quality,
        images_per_shard=config.images_per_shard,
        exif_orientation=config.exif_orientation,
    )


def _vocabulary(
    config: CaptionsConfig, columns: CaptionColumns, tokeniser: Tokeniser
) -> tuple[Vocabulary, npt.NDArray[np.bool_]]:
    """The vocabulary, and which of the captions' words have a vector, (words,)."""
    vectors = read_vectors(
        Path(config.vectors), set(columns.words), VECTOR_DIM,
        frequent_rows=config.frequent_words, is_word=lambda word: tokeniser.words(word) == [word],
    )  # fmt: skip
    counts = dict(zip(columns.words, columns.word_counts().tolist(), strict=True))
    has_vector = np.array([word in vectors for word in columns.words])
    unknown = [word for word in columns.words if word not in vectors]
    subwords = fit_subwords(vectors) if config.unknown_words == "subword" else None
    spelled = {
        word: vector
        for word in unknown
        if subwords and (vector := subwords.vector(word)) is not None
    }
    zeros = np.zeros(VECTOR_DIM, np.float32)
    min_count = config.learned_words or math.inf
    learned = {word: zeros for word in unknown if counts[word] >= min_count}
    vocabulary = build_vocabulary(
        counts, vectors | learned | spelled, tokeniser,
        spelled=frozenset(spelled), subwords=subwords,
    )  # fmt: skip
    return vocabulary, has_vector


def _by_source_and_split(images: Sequence[CaptionedImage]) -> dict[str, dict[str, int]]:
    counts: dict[str, Counter[str]] = {}
    for image in images:
        counts.setdefault(image.source, Counter())[image.split] += 1
    return {source: dict(by_split) for source, by_split in counts.items()}


def _format_counts(counts: dict[str, dict[str, int]]) -> str:
    """'coco 5 train, 2 val; flickr30k 2 train'."""
    parts = (
        f"{source} " + ", ".join(f"{count} {split}" for split, count in by_split.items())
        for source, by_split in counts.items()
    )
    return "; ".join(parts)


def _check_splits(what: str, counts: dict[str, dict[str, int]], left_out: Counter[str]) -> None:
    present = {split for by_split in counts.values() for split in by_split}
    if missing := {"train", "val"} - present:
        splits = ", ".join(sorted(missing))
        raise DataError(f"captions: no {what} in {splits}; left out: {dict(left_out)}")
