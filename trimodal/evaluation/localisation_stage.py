"""Test sets of kind ``localisation`` in stage ``evaluate`` (docs/evaluation.md)."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pyarrow.compute as pc

from trimodal.core.files import read_table, write_json, write_table
from trimodal.core.progress import log, summary_line
from trimodal.core.schemas import AV_SCHEMA
from trimodal.evaluation.localisation import LocalisationResults, evaluate_localisation
from trimodal.evaluation.localisation_items import read_items
from trimodal.evaluation.localisation_set import LocalisationSet
from trimodal.evaluation.pairs import leak_counts
from trimodal.evaluation.results import MAPS, METRICS
from trimodal.evaluation.task import Task, data_fingerprint
from trimodal.training.distributed import World
from trimodal.training.leaks import Leaks, check_leaks, find_leaks

_ID_LENGTH = 11  # of a YouTube video, with which the names of VGG-SS begin


def evaluate_localisation_set(task: Task, test_set: LocalisationSet) -> None:
    """Compares maps with boxes and writes the results, with examples in sound_maps.parquet. Rank 0
    does it alone, and nothing is kept for the next run.

    Raises what :func:`~trimodal.evaluation.localisation.evaluate_localisation` does, and DataError
    for test clips that are in the training data.
    """
    if not task.world.is_main:
        return
    task = replace(task, world=World(device=task.world.device))
    table = task.clips()
    read = task.open_shards(table)
    annotated = read_items(test_set, task.checkpoint, table, read)
    leaks = _leaks(task, test_set, [item.name for item in annotated.items])
    check_leaks("evaluate", leaks, task.leaks, items="test clips")
    left_out = leaks.videos if task.leaks.test_in_training == "leave_out" else frozenset()
    results = evaluate_localisation(
        test_set,
        task.network(),
        task.checkpoint,
        table,
        min_coverage=task.config.min_coverage,
        resamples=task.config.bootstrap_resamples,
        read=read,
        device=task.world.device,
        left_out=left_out,
    )
    data = {"data": data_fingerprint(task.inputs.av)}
    task.write_audit(data, results.audit, leak_counts(leaks))
    write_table(task.out / MAPS, results.maps)
    write_json(task.out / METRICS, results.metrics)
    log.info(summary_line(_summary(task.name, results), Counter(results.audit["left_out"])))


def _leaks(task: Task, test_set: LocalisationSet, names: Sequence[str]) -> Leaks:
    if not Path(test_set.path).is_dir():
        return find_leaks(task.inputs.av, task.inputs.images).among(names)
    return find_file_leaks(task.inputs.av, names, of_youtube=test_set.annotations == "vggss")


def find_file_leaks(av_dir: Path, names: Sequence[str], *, of_youtube: bool) -> Leaks:
    """The files, not among the test clips, that are named as a training or validation clip or, if
    they are ``of_youtube``, as the video that one is from.
    """
    columns = ["split", "clip_id", "youtube_id"]
    index = read_table(av_dir / "index.parquet", AV_SCHEMA, columns=columns)
    training = index.filter(pc.field("split") != "test")
    clips = set(training["clip_id"].to_pylist())
    videos = set(training["youtube_id"].to_pylist()) - {""} if of_youtube else set()
    return Leaks(
        test_videos=frozenset(names),
        by_reason={
            "same_clip": {name: name for name in names if name in clips},
            "same_youtube_video": {n: n[:_ID_LENGTH] for n in names if n[:_ID_LENGTH] in videos},
        },
        unknown_origin=frozenset() if of_youtube else frozenset(names),
    )


def _summary(name: str, results: LocalisationResults) -> str:
    sound, centre = results.metrics["sound"]["as_many"], results.metrics["centre"]["as_many"]
    return (
        f"evaluate {name}: {results.audit['queries']} items: cIoU {sound['cIoU']:.1f}, AUC "
        f"{sound['AUC']:.1f} of as many pixels as are true (the centre: cIoU {centre['cIoU']:.1f}, "
        f"AUC {centre['AUC']:.1f})"
    )
