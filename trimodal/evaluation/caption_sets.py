"""What captioned images and captioned sounds have in common: files embedded one by one, captions,
and embeddings that are kept.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

from torch import Tensor

from trimodal.core.archives import ArchiveError, StoredFile, read_file
from trimodal.core.fingerprint import bytes_fingerprint
from trimodal.core.progress import log
from trimodal.evaluation.embedding import embed_each, embed_sentences
from trimodal.evaluation.pairs import (
    Pairs,
    check_pair_rows,
    check_pairs,
    paired,
    query_ids,
    read_pairs,
    write_pairs,
)
from trimodal.evaluation.results import EMBEDDINGS
from trimodal.evaluation.task import Task
from trimodal.models.networks import TrimodalNet


@dataclass(frozen=True, kw_only=True)
class CaptionedFile:
    """An item of a test set: its name, its file (None if missing) and its captions."""

    name: str
    file: StoredFile | None
    captions: tuple[str, ...]


class UnusableFileError(ValueError):
    """A file that cannot be embedded; the message says why."""


def embed_captioned(
    task: Task,
    modality: str,
    what: str,
    items: Sequence[CaptionedFile],
    embed: Callable[[TrimodalNet, StoredFile], Tensor],
    **settings: Any,
) -> tuple[Pairs, Counter[str]]:
    """The embeddings of captions and items: an earlier run's if they are of the same files,
    captions, model and ``settings``, else ``embed`` gives that of a file, (dim,), or raises
    UnusableFileError. Returns what was left out, too: items without a file, and unusable ones,
    which the log names.

    Raises DataError if fewer than ``evaluate.min_coverage`` of the items, called ``what``, or than
    two are usable, and EmbeddingError for embeddings that are not finite.
    """
    found = [(item, item.file) for item in items if item.file is not None]
    missing = Counter({"file missing": len(items) - len(found)})
    captions = {item.name: item.captions for item, _ in found}
    identity = task.identity(
        captions=captions, files=[content_fingerprint(file) for _, file in found], **settings
    )
    sentence_of = {
        query: caption
        for name, of_item in captions.items()
        for query, caption in zip(query_ids(name, len(of_item)), of_item, strict=True)
    }
    modalities, path = ("text", modality), task.out / EMBEDDINGS
    if cached := task.on_all_ranks(read_pairs(path, identity, modalities, sentence_of)):
        check_pairs(task, what, len(cached[0].items), cached[1] + missing)
        return cached[0], cached[1] + missing

    def embed_row(network: TrimodalNet, row: int) -> Tensor | None:
        item, file = found[row]
        try:
            return embed(network, file)
        except (UnusableFileError, ArchiveError) as error:
            log.info(f"evaluate {task.name}: {item.name} is left out: {error}")
            return None

    network = task.network()
    rows, is_there = embed_each(network, len(found), embed_row, world=task.world, unit=what)
    unusable = Counter({"file not usable": int((~is_there).sum())})
    names = [item.name for (item, _), there in zip(found, is_there, strict=True) if there]
    check_pairs(task, what, len(names), missing + unusable)
    texts = [captions[name] for name in names]
    sentences = list(chain.from_iterable(texts))
    text = embed_sentences(network, sentences, task.world.device)
    pairs = paired(modalities, names, texts, text, rows[is_there])
    check_pair_rows(pairs)
    if task.world.is_main:
        write_pairs(path, pairs, identity, unusable)
    return pairs, unusable + missing


def content_fingerprint(file: StoredFile) -> str:
    """Of a file's content; empty for a member of a damaged archive."""
    try:
        return bytes_fingerprint(read_file(file))
    except ArchiveError:
        return ""
