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
from dataclasses import asdict, dataclass, replace
from itertools import product
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from benchmarks.measuring import machine, say
from trimodal.files import write_json
from trimodal.significance import PER_QUERY, paired_over_queries, paired_over_seeds

Changes = Mapping[str, Mapping[str, Any]]
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
    changes = {DEFAULT: {}, **{name: choice.changes for name, choice in asked.items()}}
    training = {name: _of_training(asked_for) for name, asked_for in changes.items()}
    keys = list(product(args.seeds, changes))
    with ProcessPoolExecutor(args.processes, mp_context=get_context("spawn")) as pool:
        # The same training is asked for once; what an earlier call finished is taken as it is.
        trained = {
            (seed, str(what)): pool.submit(_train, args.folder, seed, what)
            for seed, what in product(args.seeds, training.values())
        }
        for job in trained.values():
            say(f"trained: {job.result()}")
        tested = {
            (name, seed): pool.submit(
                _ranks, trained[seed, str(training[name])].result(), changes[name]
            )
            for seed, name in keys
        }
        found = {key: job.result() for key, job in tested.items()}
    results = {name: _compared(name, choice, found, args.seeds) for name, choice in asked.items()}
    _say(results)
    write_json(RESULT, {"machine": machine(), "seeds": args.seeds, "choices": results})


def _of_training(changes: Changes) -> Changes:
    return {section: values for section, values in changes.items() if section != "evaluate"}


def _train(folder: Path, seed: int, changes: Changes) -> Path:
    """Trains into a folder that is named by all that shapes the run; returns it."""
    from benchmarks.trained import train_into
    from trimodal.config import load_section
    from trimodal.files import code_fingerprint, file_fingerprint, fingerprint
    from trimodal.images import AugmentConfig
    from trimodal.losses import LossConfig
    from trimodal.model import ModelConfig
    from trimodal.progress import hush
    from trimodal.trainer import TrainConfig
    from trimodal.training import SHAPING_MODULES

    hush()
    params = Path("params.yaml")
    config = replace(load_section(params, "train", TrainConfig), **changes.get("train", {}))
    loss = replace(load_section(params, "loss", LossConfig), **changes.get("loss", {}))
    model = replace(load_section(params, "model", ModelConfig), **changes.get("model", {}))
    augment = replace(load_section(params, "augment", AugmentConfig), **changes.get("augment", {}))
    config = replace(config, seed=seed)
    sections: dict[str, Any] = {"train": config, "loss": loss, "model": model, "augment": augment}
    data = [file_fingerprint(Path("data") / name / "index.parquet") for name in ("av", "images")]
    shaped_by = [{name: asdict(part) for name, part in sections.items()}, data]
    out = folder / fingerprint([*shaped_by, code_fingerprint(*SHAPING_MODULES)])
    if (out / "model.json").exists():
        return out
    out.mkdir(parents=True, exist_ok=True)
    train_into(out, config, loss, model, augment)
    return out


def _ranks(out: Path, changes: Changes) -> dict[str, np.ndarray]:
    """Search: the rank of each sentence's video."""
    from benchmarks.trained import evaluate_in
    from trimodal.config import load_section
    from trimodal.evaluation import EvaluateConfig
    from trimodal.progress import hush

    hush()
    config = load_section(Path("params.yaml"), "evaluate", EvaluateConfig)
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
            np.stack([PER_QUERY[metric](found[which, seed][search]) for seed in seeds])
            for which in (choice.against, name)
        )
        told[f"{search} {metric}"] = {
            "without": float(without.mean()),
            "with": float(with_it.mean()),
            "over_queries": str(paired_over_queries(without.mean(axis=0), with_it.mean(axis=0))),
            "over_seeds": str(paired_over_seeds(without.mean(axis=1), with_it.mean(axis=1))),
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
