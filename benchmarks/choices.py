"""What helps, of what the paper leaves open: ``python -m benchmarks.choices``, ``make choices``.

Trains the demo's model with each choice and several seeds on the data that ``make repro`` left in
``data``, and tests each against the same recipe without it: over sentences (means over seeds) and
over seeds. Processes of one thread, two at a time; trained models are kept in ``data/choices``. The
numbers go to ``metrics/choices.json``.
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

from benchmarks.measuring import machine, say
from trimodal.core.files import write_json
from trimodal.core.fingerprint import fingerprint
from trimodal.report.significance import PER_QUERY, both_tests

Changes = Mapping[str, Mapping[str, Any]]
_PARAMS = Path("params.yaml")
RESULT = Path("metrics/choices.json")
METRICS = ("R@1", "R@10", "MeanR")
SEARCHES = ("image", "image_audio")
DEFAULT, VARIABLE = "as params.yaml says", "variable margin"
_VARIABLE = {"margin_mode": "variable"}


@dataclass(frozen=True, kw_only=True)
class Choice:
    """Values of params.yaml's sections, and the choice it is set against. With only ``evaluate``
    changed nothing is trained: it is that choice's model, tested otherwise.
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
    "8 moments a test video": Choice(against=DEFAULT, changes={"evaluate": {"points": 8}}),
}


def main() -> None:
    """Trains what is not trained yet, and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--folder", type=Path, default=Path("data/choices"), help="of the runs")
    parser.add_argument("--leave-out", nargs="*", choices=CHOICES, default=[])
    args = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"  # of the processes below
    asked = {name: choice for name, choice in CHOICES.items() if name not in args.leave_out}
    changes = {
        DEFAULT: {},
        **{name: CHOICES[name].changes for name in sorted(_with_references(asked))},
    }
    with ProcessPoolExecutor(args.processes, mp_context=get_context("spawn")) as pool:
        trained = {
            (_training_of(what), seed): (what, seed)
            for seed, what in product(args.seeds, changes.values())
        }
        jobs = {
            key: pool.submit(_train, args.folder / "-".join(map(str, key)), seed, what)
            for key, (what, seed) in trained.items()
        }
        for job in jobs.values():
            say(f"trained: {job.result()}")
        tested = {
            (name, seed): pool.submit(_ranks, jobs[_training_of(what), seed].result(), what)
            for seed, (name, what) in product(args.seeds, changes.items())
        }
        found = {key: job.result() for key, job in tested.items()}
    results = {name: _compared(name, choice, found, args.seeds) for name, choice in asked.items()}
    _say(results)
    write_json(RESULT, {"machine": machine(), "seeds": args.seeds, "choices": results})


def _with_references(asked: Mapping[str, Choice]) -> set[str]:
    """The choices asked for and those that they are set against."""
    return ({*asked} | {choice.against for choice in asked.values()}) - {DEFAULT}


def _training_of(changes: Changes) -> str:
    """Names what is trained: choices that differ in ``evaluate`` alone share it."""
    return fingerprint({name: values for name, values in changes.items() if name != "evaluate"})


def _train(out: Path, seed: int, changes: Changes) -> Path:
    """Trains into ``out`` and returns it. What an earlier call finished there is not trained again,
    unless params, data or code are others now: training knows (trimodal.training.resume).
    """
    from benchmarks.trained import train_into
    from trimodal.core.config import load_section
    from trimodal.core.progress import silence
    from trimodal.losses.config import LossConfig
    from trimodal.models.networks import ModelConfig
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
    """Search: the rank of each sentence's video."""
    from benchmarks.trained import evaluate_in
    from trimodal.core.config import load_section
    from trimodal.core.progress import silence
    from trimodal.evaluation.evaluate import EvaluateConfig

    silence()
    config = load_section(_PARAMS, "evaluate", EvaluateConfig)
    with TemporaryDirectory() as tested:
        for name in ("model.safetensors", "model.json"):
            (Path(tested) / name).symlink_to((out / name).resolve())
        evaluate_in(Path(tested), replace(config, **changes.get("evaluate", {})))
        table = pq.read_table(Path(tested) / "ranks.parquet")
    return {search: table[f"rank_{search}"].to_numpy() for search in SEARCHES}


def _compared(
    name: str,
    choice: Choice,
    found: Mapping[tuple[str, int], Mapping[str, np.ndarray]],
    seeds: Sequence[int],
) -> dict[str, Any]:
    told: dict[str, Any] = {"against": choice.against}
    for search, metric in product(SEARCHES, METRICS):
        without, with_it = (
            [found[which, seed][search] for seed in seeds] for which in (choice.against, name)
        )
        tests = both_tests(without, with_it, metric)
        told[f"{search} {metric}"] = {
            "without": float(PER_QUERY[metric](np.stack(without)).mean()),
            "with": float(PER_QUERY[metric](np.stack(with_it)).mean()),
            **{test: str(difference) for test, difference in tests._asdict().items()},
        }
    return told


def _say(results: Mapping[str, Mapping[str, Any]]) -> None:
    """Text to video by image + audio; the JSON has the other search and the seeds' intervals."""
    say(f"\n| choice | against | {' | '.join(METRICS)} |\n| --- | --- |{' --- |' * len(METRICS)}")
    for name, told in results.items():
        cells = [
            f"{one['with']:.1f}: {one['over_queries']}"
            for one in (told[f"image_audio {metric}"] for metric in METRICS)
        ]
        say(f"| {name} | {told['against']} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
