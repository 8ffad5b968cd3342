"""Test sets of kind ``audio_image``: the sound of a clip finds its picture and back
(docs/evaluation.md).
"""

from collections import Counter
from pathlib import Path

import numpy as np

from trimodal.core.records import DataError
from trimodal.evaluation.config import AudioImageSet
from trimodal.evaluation.embedding import embed_clips
from trimodal.evaluation.pairs import (
    Pairs,
    check_pair_rows,
    check_pairs,
    read_pairs,
    write_pair_results,
    write_pairs,
)
from trimodal.evaluation.results import EMBEDDINGS
from trimodal.evaluation.task import Task, data_fingerprint
from trimodal.sources.clip_lists import read_clip_list
from trimodal.training.leaks import check_leaks, find_leaks

_MODALITIES = ("audio", "image")


def evaluate_audio_image(task: Task, test_set: AudioImageSet) -> None:
    """Embeds the listed clips of the test shards that have audio, ranks them and writes the
    results. Errors as of :func:`~trimodal.evaluation.text_image.evaluate_text_image`.
    """
    names, left_out = read_clip_list(Path(test_set.path))
    leaks = find_leaks(task.inputs.av, task.inputs.images).among(names)
    check_leaks("evaluate", leaks, task.leaks)
    if task.leaks.test_in_training == "leave_out":
        names = [name for name in names if name not in leaks.videos]
        left_out["seen in training"] = len(leaks.videos)
    pairs, not_usable = _embeddings(task, names)
    if task.world.is_main:
        write_pair_results(
            task,
            pairs,
            duplicates="own",
            folds=0,
            leaks=leaks,
            left_out=left_out + not_usable,
            facts={"data": data_fingerprint(task.inputs.av)},
        )


def _embeddings(task: Task, names: list[str]) -> tuple[Pairs, Counter[str]]:
    """Those of an earlier run if they are of the same clips and model; and counts of clips that are
    not among the test clips or have no audio, which are left out.
    """
    table = task.clips()
    by_id = {clip.clip_id: clip for clip in table}
    if len(by_id) < len(table):
        raise DataError("evaluate: the index of clips has a video more than once")
    clips = [by_id[name] for name in names if name in by_id and by_id[name].has_audio]
    silent = sum(name in by_id and not by_id[name].has_audio for name in names)
    left_out = Counter(
        {
            "not among the extracted test clips": len(names) - len(clips) - silent,
            "without audio": silent,
        }
    )
    check_pairs(task, "clips", len(clips), left_out)
    identity = task.identity(
        clips=[clip.clip_id for clip in clips],
        data=data_fingerprint(task.inputs.av),
        frames_per_video=task.config.frames_per_video,
    )
    path = task.out / EMBEDDINGS
    if cached := task.on_all_ranks(read_pairs(path, identity, _MODALITIES, {})):
        return cached[0], left_out
    embedded = embed_clips(
        task.network(),
        clips,
        frames_per_video=task.config.frames_per_video,
        renormalise=task.config.renormalise,
        front_end=task.checkpoint.audio_front_end,
        augment=task.checkpoint.augment,
        world=task.world,
        read=task.open_shards(table),
    )
    ids = [clip.clip_id for clip in clips]
    pairs = Pairs(
        modalities=_MODALITIES,
        queries=ids,
        items=ids,
        owner=np.arange(len(ids)),
        sentences=[],
        first=embedded.audio,
        second=embedded.image,
    )
    check_pair_rows(pairs)
    if task.world.is_main:
        write_pairs(path, pairs, identity, {})
    return pairs, left_out
