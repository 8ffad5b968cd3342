"""Ablation of what the paper leaves open: ``python -m experiments.choices`` (``make choices``).

Trains the demo's model with each choice and several seeds on the data that ``make repro`` wrote to
``data``, and tests each against the same recipe without it: over queries (means over seeds) and
over seeds. Runs two processes of one thread; trained models are kept in ``data/choices``. Prints a
table and writes ``metrics/choices.json``.
"""

import argparse
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from itertools import product
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from benchmarks.measuring import describe_machine, say
from benchmarks.spread import DATA
from trimodal.core.arguments import Distinct, positive, seed_number
from trimodal.core.files import check_writable, write_json
from trimodal.core.fingerprint import fingerprint
from trimodal.report.significance import PER_QUERY, difference_in_words

Changes = Mapping[str, Mapping[str, Any]]
_PARAMS = Path("params.yaml")
RESULT = Path("metrics/choices.json")
METRICS = ("R@1", "R@10", "MeanR")
SEARCHES = ("image", "image_audio")
DEFAULT, VARIABLE = "as params.yaml says", "variable margin"
_VARIABLE = {"margin_mode": "variable"}


@dataclass(frozen=True, kw_only=True)
class Choice:
    """Changes to params.yaml's sections, and the choice it is compared with. If only ``evaluate``
    changes, nothing is trained: that choice's model is evaluated differently.
    """

    against: str
    changes: Changes


CHOICES: dict[str, Choice] = {
    VARIABLE: Choice(against=DEFAULT, changes={"loss": _VARIABLE}),
    "... of temperature 0.2": Choice(
        against=VARIABLE, changes={"loss": {**_VARIABLE, "margin_temperature": 0.2}}
    ),
    "... on all anchors": Choice(
        against=VARIABLE, changes={"loss": {"margin_mode": "variable_all"}}
    ),
    "InfoNCE": Choice(against=DEFAULT, changes={"loss": {"kind": "info_nce"}}),
    "hardest negatives": Choice(against=DEFAULT, changes={"loss": {"kind": "hardest"}}),
    "semi-hard negatives": Choice(against=DEFAULT, changes={"loss": {"kind": "semi_hard"}}),
    "alternating updates": Choice(against=DEFAULT, changes={"train": {"update": "alternating"}}),
    "read shard by shard": Choice(against=DEFAULT, changes={"train": {"reader": "stream"}}),
    "warm-up, 60 steps": Choice(against=DEFAULT, changes={"train": {"warmup_steps": 60}}),
    "SpecAugment, 1 s and 12 mels": Choice(
        against=DEFAULT, changes={"augment": {"mask_seconds": 1.0, "mask_mels": 12}}
    ),
    "text pooled over words": Choice(against=DEFAULT, changes={"model": {"text_pooling": "words"}}),
    "text: the mean of the words": Choice(
        against=DEFAULT, changes={"model": {"text_network": "mean"}}
    ),
    "word vectors trained": Choice(against=DEFAULT, changes={"model": {"word_vectors": "trained"}}),
    "heads of one layer": Choice(against=DEFAULT, changes={"model": {"head": "linear"}}),
    "dropout, 0.3": Choice(against=DEFAULT, changes={"model": {"dropout": 0.3}}),
    "means made unit vectors": Choice(against=DEFAULT, changes={"evaluate": {"renormalise": True}}),
    "8 moments a test video": Choice(
        against=DEFAULT, changes={"evaluate": {"frames_per_video": 8}}
    ),
}


def main() -> None:
    """Trains what is not trained yet, evaluates, prints the table and writes the JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=seed_number, nargs="+", action=Distinct, default=[1, 2, 3])
    parser.add_argument("--processes", type=positive, default=2)
    parser.add_argument(
        "--folder", type=Path, default=Path("data/choices"), help="where trained models are kept"
    )
    parser.add_argument("--leave-out", nargs="*", choices=CHOICES, default=[])
    args = parser.parse_args()
    chosen = {name: choice for name, choice in CHOICES.items() if name not in args.leave_out}
    if not chosen:
        parser.error("--leave-out leaves nothing to train")
    if missing := [name for name in DATA if not (Path("data") / name).is_dir()]:
        parser.error(f"data/ has no {', '.join(missing)}: run `make repro` first")
    try:
        check_writable(RESULT)
        check_writable(args.folder / "trained")
    except OSError as error:
        parser.error(str(error))
    os.environ["OMP_NUM_THREADS"] = "1"  # for the worker processes
    changes = {
        DEFAULT: {},
        **{name: CHOICES[name].changes for name in sorted(_with_references(chosen))},
    }
    with ProcessPoolExecutor(args.processes, mp_context=get_context("spawn")) as pool:
        trainings = {
            (_training_key(change), seed): (change, seed)
            for seed, change in product(args.seeds, changes.values())
        }
        jobs = {
            key: pool.submit(_train, args.folder / "-".join(map(str, key)), seed, change)
            for key, (change, seed) in trainings.items()
        }
        for job in jobs.values():
            say(f"trained: {job.result()}")
        evaluations = {
            (name, seed): pool.submit(_ranks, jobs[_training_key(change), seed].result(), change)
            for seed, (name, change) in product(args.seeds, changes.items())
        }
        ranks = {key: job.result() for key, job in evaluations.items()}
    results = {name: _compare(name, choice, ranks, args.seeds) for name, choice in chosen.items()}
    _print_table(results)
    write_json(RESULT, {"machine": describe_machine(), "seeds": args.seeds, "choices": results})


def _with_references(chosen: Mapping[str, Choice]) -> set[str]:
    """The chosen choices and those that they are compared with."""
    return ({*chosen} | {choice.against for choice in chosen.values()}) - {DEFAULT}


def _training_key(changes: Changes) -> str:
    """Identifies a training run: choices that differ only in ``evaluate`` share one."""
    return fingerprint({name: values for name, values in changes.items() if name != "evaluate"})


def _train(out: Path, seed: int, changes: Changes) -> Path:
    """Trains into ``out`` and returns it. A run that an earlier call finished there is reused if
    its params, data and code are unchanged (:mod:`trimodal.training.resume`).
    """
    from benchmarks.trained import train_into
    from trimodal.core.config import load_section
    from trimodal.core.progress import silence
    from trimodal.losses.config import LossConfig
    from trimodal.models.config import ModelConfig
    from trimodal.models.preprocessing import AugmentConfig
    from trimodal.training.config import TrainConfig

    silence()
    out.mkdir(parents=True, exist_ok=True)
    config = load_section(_PARAMS, "train", TrainConfig)
    train_into(
        out,
        replace(config, seed=seed, **changes.get("train", {})),
        replace(load_section(_PARAMS, "loss", LossConfig), **changes.get("loss", {})),
        replace(load_section(_PARAMS, "model", ModelConfig), **changes.get("model", {})),
        replace(load_section(_PARAMS, "augment", AugmentConfig), **changes.get("augment", {})),
    )
    return out


def _ranks(out: Path, changes: Changes) -> dict[str, np.ndarray]:
    """By search: the rank of each sentence's video, (queries,)."""
    from benchmarks.trained import evaluate_in
    from trimodal.core.config import load_section
    from trimodal.core.progress import silence
    from trimodal.evaluation.evaluate import EvaluateConfig

    silence()
    config = load_section(_PARAMS, "evaluate", EvaluateConfig)
    with TemporaryDirectory() as folder:
        for name in ("model.safetensors", "model.json"):
            (Path(folder) / name).symlink_to((out / name).resolve())
        evaluate_in(Path(folder), replace(config, **changes.get("evaluate", {})))
        table = pq.read_table(Path(folder) / "ranks.parquet")
    return {search: table[f"rank_{search}"].to_numpy() for search in SEARCHES}


def _compare(
    name: str,
    choice: Choice,
    ranks: Mapping[tuple[str, int], Mapping[str, np.ndarray]],
    seeds: Sequence[int],
) -> dict[str, Any]:
    comparison: dict[str, Any] = {"against": choice.against}
    for search, metric in product(SEARCHES, METRICS):
        without, with_it = (
            [ranks[compared, seed][search] for seed in seeds] for compared in (choice.against, name)
        )
        comparison[f"{search} {metric}"] = {
            "without": float(PER_QUERY[metric](np.stack(without)).mean()),
            "with": float(PER_QUERY[metric](np.stack(with_it)).mean()),
            **difference_in_words(without, with_it, metric),
        }
    return comparison


def _print_table(results: Mapping[str, Mapping[str, Any]]) -> None:
    """Prints text to video by image + audio; the JSON also has the search by image alone and the
    tests over seeds.
    """
    say(f"\n| choice | against | {' | '.join(METRICS)} |\n| --- | --- |{' --- |' * len(METRICS)}")
    for name, comparison in results.items():
        cells = [
            f"{result['with']:.1f}: {result['over_queries']}"
            for result in (comparison[f"image_audio {metric}"] for metric in METRICS)
        ]
        say(f"| {name} | {comparison['against']} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
