"""Test sets of kind ``localisation`` in stage ``evaluate`` (docs/evaluation.md)."""

from collections import Counter
from dataclasses import replace

from trimodal.core.files import write_json, write_table
from trimodal.core.progress import log, summary_line
from trimodal.evaluation.localisation import LocalisationResults, evaluate_localisation
from trimodal.evaluation.localisation_items import read_items
from trimodal.evaluation.localisation_set import LocalisationSet
from trimodal.evaluation.pairs import leak_counts
from trimodal.evaluation.results import MAPS, METRICS
from trimodal.evaluation.task import Task, data_fingerprint
from trimodal.training.distributed import World
from trimodal.training.leaks import check_leaks, find_leaks


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
    leaks = find_leaks(task.inputs.av, task.inputs.images)
    leaks = leaks.among([item.name for item in annotated.items])
    check_leaks("evaluate", leaks, task.leaks, items="test clips")
    left_out = leaks.videos if task.leaks.test_in_training == "leave_out" else frozenset()
    results = evaluate_localisation(
        test_set,
        task.network(),
        task.checkpoint,
        [clip for clip in table if clip.clip_id not in left_out],
        min_coverage=task.config.min_coverage,
        resamples=task.config.bootstrap_resamples,
        read=read,
        device=task.world.device,
    )
    data = {"data": data_fingerprint(task.inputs.av)}
    task.write_audit(data, results.audit, leak_counts(leaks))
    write_table(task.out / MAPS, results.maps)
    write_json(task.out / METRICS, results.metrics)
    log.info(summary_line(_summary(task.name, results), Counter(results.audit["left_out"])))


def _summary(name: str, results: LocalisationResults) -> str:
    sound, centre = results.metrics["sound"]["as_many"], results.metrics["centre"]["as_many"]
    return (
        f"evaluate {name}: {results.audit['queries']} items: cIoU {sound['cIoU']:.1f}, AUC "
        f"{sound['AUC']:.1f} of as many pixels as are true (the centre: cIoU {centre['cIoU']:.1f}, "
        f"AUC {centre['AUC']:.1f})"
    )
