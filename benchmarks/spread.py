"""What is not bit-equal between processors: ``python -m benchmarks.spread``.

Trains the demo's model on the data that ``make repro`` left in ``data``, with the same seed, as the
libraries compute here and then as they compute on other processors: PyTorch, oneDNN and MKL choose
their code by the instructions that a processor has, and sums come out in another order. Each way
has a process of its own. Prints how far the weights are apart after one step, after some, and at
the end (the whole difference's length as a share; in brackets the largest difference within a
tensor as a share of its largest element), and what becomes of the metrics; beside them what
another seed makes of the metrics.
"""

import argparse
import math
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.measuring import in_child, machine, say

DATA = ("av", "captions", "images", "world")
METRICS = ("R@1", "R@10", "MeanR")
AS_HERE = "as here"
OLD = {
    "ATEN_CPU_CAPABILITY": "default",
    "ONEDNN_MAX_CPU_ISA": "SSE41",
    "MKL_CBWR": "COMPATIBLE",
}
# The first two are the same on purpose: what differs between them would be chance.
WAYS: dict[str, dict[str, str]] = {
    AS_HERE: {},
    "as here, once more": {},
    "PyTorch without AVX": {"ATEN_CPU_CAPABILITY": "default"},
    "PyTorch with AVX2": {"ATEN_CPU_CAPABILITY": "avx2"},
    "oneDNN with SSE 4.1": {"ONEDNN_MAX_CPU_ISA": "SSE41"},
    "oneDNN with AVX2": {"ONEDNN_MAX_CPU_ISA": "AVX2"},
    "MKL for any processor": {"MKL_CBWR": "COMPATIBLE"},
    "all three as on an old processor": OLD,
    "one thread": {"OMP_NUM_THREADS": "1"},
    "two threads": {"OMP_NUM_THREADS": "2"},
}


@dataclass(frozen=True, kw_only=True)
class Job:
    """What one process trains: ``epochs``, and beside that trainings of so many ``steps``."""

    seed: int
    epochs: int
    steps: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What one process came to: the weights' file of each training, that of all epochs last, the
    metrics of that one (text to video, image + audio), and what PyTorch says it computed with.
    """

    weights: tuple[Path, ...]
    metrics: dict[str, float]
    computed_with: str


def main() -> None:
    """Trains every way and with other seeds, prints both tables."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument(
        "--epochs", type=int, default=4, help="of each training, of params.yaml's steps"
    )
    parser.add_argument(
        "--steps", type=int, nargs="*", default=[1, 30], help="look after so many, too"
    )
    parser.add_argument(
        "--seeds", type=int, nargs="+", default=[1, 2, 3], help="the first: all ways'"
    )
    parser.add_argument(
        "--ways", nargs="+", choices=WAYS, help="all but the threads that are used anyway"
    )
    given = parser.parse_args()
    if missing := [name for name in DATA if not (Path("data") / name).is_dir()]:
        parser.error(f"data/ lacks {', '.join(missing)}: run `make repro` first")
    first = Job(seed=given.seeds[0], epochs=given.epochs, steps=tuple(given.steps))
    here = str(os.cpu_count())
    asked = given.ways or [way for way in WAYS if WAYS[way].get("OMP_NUM_THREADS") != here]
    ways = [AS_HERE, *(way for way in asked if way != AS_HERE)]
    with TemporaryDirectory(prefix="spread-") as name:
        folder = Path(name)
        say(f"{machine()}; {given.epochs} epochs\n")
        columns = [*(f"{_steps(n)}" for n in first.steps), "trained", *METRICS]
        say(f"| way | PyTorch says | {' | '.join(columns)} |")
        say(f"| --- | --- |{' ---: |' * len(columns)}")
        outcomes: dict[str, Outcome] = {}
        for way in ways:
            outcomes[way] = trained(folder / str(len(outcomes)), first, WAYS[way])
            say(row(way, outcomes[way], outcomes[AS_HERE]))
        seeded = [outcomes[AS_HERE].metrics]
        for seed in given.seeds[1:]:
            job = replace(first, seed=seed, steps=())
            seeded.append(trained(folder / f"seed-{seed}", job, {}).metrics)
    say("\n| | " + " | ".join(METRICS) + " |")
    say(f"| --- |{' ---: |' * len(METRICS)}")
    for seed, metrics in zip(given.seeds, seeded, strict=True):
        say(f"| seed {seed} | " + " | ".join(f"{metrics[key]:.2f}" for key in METRICS) + " |")
    say(f"| largest less smallest, {len(seeded)} seeds | {_ranges(seeded)} |")
    say(f"| the same, {len(ways)} ways | {_ranges([o.metrics for o in outcomes.values()])} |")


def trained(folder: Path, job: Job, environment: dict[str, str]) -> Outcome:
    """Does a job in a process of its own, which begins with these variables set."""
    folder.mkdir()
    with set_environment(environment):
        return in_child(do, folder, job)


def do(folder: Path, job: Job) -> Outcome:
    """Does a job in this process; the weights are left in ``folder``."""
    import torch

    from benchmarks.trained import evaluate_in, train_into
    from trimodal.core.config import load_section
    from trimodal.evaluation.evaluate import EvaluateConfig
    from trimodal.losses.config import LossConfig
    from trimodal.training.config import TrainConfig

    params = Path("params.yaml")
    loss = load_section(params, "loss", LossConfig)
    config = replace(
        load_section(params, "train", TrainConfig), seed=job.seed, epochs=job.epochs, device="cpu"
    )
    # An epoch of so many steps: what is kept after it are the weights after them.
    short = [replace(config, epochs=1, steps_per_epoch=steps) for steps in job.steps]
    weights = [train_into(folder / f"{number}", one, loss) for number, one in enumerate(short)]
    weights.append(train_into(folder / "trained", config, loss))
    evaluation = replace(load_section(params, "evaluate", EvaluateConfig), device="cpu")
    metrics = evaluate_in(folder / "trained", evaluation)
    kernels, threads = torch.backends.cpu.get_cpu_capability(), torch.get_num_threads()
    return Outcome(
        weights=tuple(weights),
        metrics=metrics["text_to_video"]["image_audio"],
        computed_with=f"{kernels}, {threads} threads",
    )


def row(way: str, outcome: Outcome, reference: Outcome) -> str:
    """A way's line of the table."""
    cells = [way, outcome.computed_with]
    for ours, theirs in zip(outcome.weights, reference.weights, strict=True):
        same = ours.read_bytes() == theirs.read_bytes()
        lengths, largest = (0.0, 0.0) if same else relative_difference(ours, theirs)
        cells.append("identical" if same else f"{lengths:.1e} ({largest:.1e})")
    for key in METRICS:
        change = outcome.metrics[key] - reference.metrics[key]
        cells.append(f"{outcome.metrics[key]:.2f}" + (f" ({change:+.2f})" if change else ""))
    return f"| {' | '.join(cells)} |"


def relative_difference(weights: Path, reference: Path) -> tuple[float, float]:
    """How far the tensors of two files are apart: the length of the difference as a share of the
    reference's, all tensors as one vector; and the largest difference of two elements as a share of
    the reference tensor's largest. What batch norms count and average is left out. Raises
    ValueError for other tensors.
    """
    from safetensors.torch import load_file

    ours, theirs = load_file(weights), load_file(reference)
    if {n: t.shape for n, t in ours.items()} != {n: t.shape for n, t in theirs.items()}:
        raise ValueError(f"{weights} and {reference} hold other tensors")
    largest = squares = all_squares = 0.0
    for name, tensor in theirs.items():
        if name.endswith(("running_mean", "running_var", "num_batches_tracked")):
            continue
        here, there = ours[name].double(), tensor.double()
        scale, apart = there.abs().max().item(), (here - there).abs().max().item()
        largest = max(largest, apart / scale if scale else float(apart > 0))
        squares += (here - there).square().sum().item()
        all_squares += there.square().sum().item()
    return math.sqrt(squares / all_squares) if all_squares else float(squares > 0), largest


@contextmanager
def set_environment(values: dict[str, str]) -> Iterator[None]:
    """Sets environment variables for processes that begin within the block."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _steps(number: int) -> str:
    return f"after {number} step" + "s" * (number > 1)


def _ranges(metrics: Sequence[dict[str, float]]) -> str:
    values = ([one[key] for one in metrics] for key in METRICS)
    return " | ".join(f"{max(column) - min(column):.2f}" for column in values)


if __name__ == "__main__":
    main()
