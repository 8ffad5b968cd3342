"""How much results differ between CPUs: ``python -m benchmarks.spread``.

Trains the demo's model with the same seed on the data that ``make repro`` wrote to ``data``, with
the kernels that the libraries select here and then with those they select on other CPUs: PyTorch,
oneDNN and MKL select kernels by a CPU's instruction set, and these add in different orders. Each
setting has a fresh process. Prints how far the weights differ after one step, after some, and at
the end (the norm of the difference relative to the norm of the weights; in brackets the largest
difference within a tensor relative to its largest element), and the metrics; and beside them the
metrics of other seeds.
"""

import argparse
import math
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.measuring import describe_machine, in_child, say
from trimodal.core.arguments import Distinct, positive, seed_number

DATA = ("av", "captions", "images", "world")
METRICS = ("R@1", "R@10", "MeanR")
DEFAULT = "default"
OLD_CPU = {
    "ATEN_CPU_CAPABILITY": "default",
    "ONEDNN_MAX_CPU_ISA": "SSE41",
    "MKL_CBWR": "COMPATIBLE",
}
# The first two are the same on purpose: a difference between them would be nondeterminism.
SETTINGS: dict[str, dict[str, str]] = {
    DEFAULT: {},
    "default, repeated": {},
    "PyTorch without AVX": {"ATEN_CPU_CAPABILITY": "default"},
    "PyTorch with AVX2": {"ATEN_CPU_CAPABILITY": "avx2"},
    "oneDNN with SSE 4.1": {"ONEDNN_MAX_CPU_ISA": "SSE41"},
    "oneDNN with AVX2": {"ONEDNN_MAX_CPU_ISA": "AVX2"},
    "MKL for any CPU": {"MKL_CBWR": "COMPATIBLE"},
    "all three as on an old CPU": OLD_CPU,
    "one thread": {"OMP_NUM_THREADS": "1"},
    "two threads": {"OMP_NUM_THREADS": "2"},
}


@dataclass(frozen=True, kw_only=True)
class Job:
    """What one process trains: one run of ``epochs``, and short runs of ``steps``."""

    seed: int
    epochs: int
    steps: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """The results of one process: the weights of each run, that of all epochs last, the metrics of
    that one (text to video, image + audio), and the kernels that PyTorch reports.
    """

    weights: tuple[Path, ...]
    metrics: dict[str, float]
    kernels: str


def main() -> None:
    """Trains with every setting and with other seeds, prints both tables."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--epochs", type=positive, default=4, help="of each training run")
    parser.add_argument(
        "--steps",
        type=positive,
        nargs="*",
        action=Distinct,
        default=[1, 30],
        help="also compare after this many",
    )
    parser.add_argument(
        "--seeds",
        type=seed_number,
        nargs="+",
        action=Distinct,
        default=[1, 2, 3],
        help="the first one is for all settings",
    )
    parser.add_argument(
        "--settings",
        nargs="+",
        choices=SETTINGS,
        help="default: all but the default number of threads",
    )
    args = parser.parse_args()
    if missing := [name for name in DATA if not (Path("data") / name).is_dir()]:
        parser.error(f"data/ has no {', '.join(missing)}: run `make repro` first")
    first = Job(seed=args.seeds[0], epochs=args.epochs, steps=tuple(args.steps))
    cpus = str(os.cpu_count())
    chosen = args.settings or [
        name for name, variables in SETTINGS.items() if variables.get("OMP_NUM_THREADS") != cpus
    ]
    settings = [DEFAULT, *(name for name in chosen if name != DEFAULT)]
    with TemporaryDirectory(prefix="spread-") as name:
        folder = Path(name)
        say(f"{describe_machine()}; {args.epochs} epochs\n")
        columns = [*(f"{_steps(n)}" for n in first.steps), "trained", *METRICS]
        say(f"| setting | PyTorch reports | {' | '.join(columns)} |")
        say(f"| --- | --- |{' ---: |' * len(columns)}")
        outcomes: dict[str, Outcome] = {}
        for setting in settings:
            outcomes[setting] = trained(folder / str(len(outcomes)), first, SETTINGS[setting])
            say(row(setting, outcomes[setting], outcomes[DEFAULT]))
        seeded = [outcomes[DEFAULT].metrics]
        for seed in args.seeds[1:]:
            job = replace(first, seed=seed, steps=())
            seeded.append(trained(folder / f"seed-{seed}", job, {}).metrics)
    say("\n| | " + " | ".join(METRICS) + " |")
    say(f"| --- |{' ---: |' * len(METRICS)}")
    for seed, metrics in zip(args.seeds, seeded, strict=True):
        say(f"| seed {seed} | " + " | ".join(f"{metrics[key]:.2f}" for key in METRICS) + " |")
    say(f"| range over {len(seeded)} seeds | {_ranges(seeded)} |")
    by_setting = [outcome.metrics for outcome in outcomes.values()]
    say(f"| range over {len(settings)} settings | {_ranges(by_setting)} |")


def trained(folder: Path, job: Job, environment: dict[str, str]) -> Outcome:
    """Runs a job in a fresh process with these environment variables."""
    folder.mkdir()
    with set_environment(environment):
        return in_child(run_job, folder, job)


def run_job(folder: Path, job: Job) -> Outcome:
    """Runs a job in this process and writes the weights into ``folder``."""
    import torch

    from benchmarks.trained import evaluate_in, train_into
    from trimodal.core.config import load_section
    from trimodal.core.machine import MachineConfig
    from trimodal.evaluation.config import EvaluateConfig
    from trimodal.losses.config import LossConfig
    from trimodal.training.config import TrainConfig

    params = Path("params.yaml")
    loss = load_section(params, "loss", LossConfig)
    config = load_section(params, "train", TrainConfig)
    config = replace(config, seed=job.seed, epochs=job.epochs)
    machine = replace(load_section(params, "machine", MachineConfig), device="cpu")
    # A run of one epoch keeps the weights after its last step.
    short = [replace(config, epochs=1, steps_per_epoch=steps) for steps in job.steps]
    weights = [
        train_into(folder / f"{number}", run, loss, machine=machine)
        for number, run in enumerate(short)
    ]
    weights.append(train_into(folder / "trained", config, loss, machine=machine))
    evaluation = load_section(params, "evaluate", EvaluateConfig)
    metrics = evaluate_in(folder / "trained", evaluation, machine)
    capability, threads = torch.backends.cpu.get_cpu_capability(), torch.get_num_threads()
    return Outcome(
        weights=tuple(weights),
        metrics=metrics["text_to_video"]["image_audio"],
        kernels=f"{capability}, {threads} threads",
    )


def row(setting: str, outcome: Outcome, reference: Outcome) -> str:
    """A setting's line of the table."""
    cells = [setting, outcome.kernels]
    for ours, theirs in zip(outcome.weights, reference.weights, strict=True):
        same = ours.read_bytes() == theirs.read_bytes()
        norms, largest = (0.0, 0.0) if same else relative_difference(ours, theirs)
        cells.append("identical" if same else f"{norms:.1e} ({largest:.1e})")
    for key in METRICS:
        change = outcome.metrics[key] - reference.metrics[key]
        cells.append(f"{outcome.metrics[key]:.2f}" + (f" ({change:+.2f})" if change else ""))
    return f"| {' | '.join(cells)} |"


def relative_difference(weights: Path, reference: Path) -> tuple[float, float]:
    """How far the tensors of two files differ: the norm of the difference relative to the norm of
    the reference, all tensors as one vector; and the largest difference of two elements relative to
    the reference tensor's largest element. Batch norm statistics are left out. Raises ValueError
    if names or shapes differ.
    """
    from safetensors.torch import load_file

    ours, theirs = load_file(weights), load_file(reference)
    if {n: t.shape for n, t in ours.items()} != {n: t.shape for n, t in theirs.items()}:
        raise ValueError(f"{weights} and {reference} hold different tensors")
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
    """Sets environment variables for processes started within the block."""
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
