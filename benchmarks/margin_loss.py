"""The losses against one product of their size: ``python -m benchmarks.margin_loss``.

Forward and backward of both directions' loss between unit vectors of 256 numbers, with the fixed
and the variable margin, beside ``image @ other.T`` alone, forward and backward: in turn in one
process, float32. Peak memory is that of a process of its own, above what it had before, in
matrices of batch x batch. Needs 1 GB of memory.
"""

import argparse
from collections.abc import Callable

import torch
from torch import Tensor

from benchmarks.measuring import in_child, machine, peak_bytes, ratio, say, side_by_side
from trimodal.losses.ranking import pair_loss
from trimodal.models.networks import EMBEDDING_DIM

MARGIN = 0.2
SCALES = {"fixed": None, "variable": 2 * MARGIN}


def main() -> None:
    """Measures every batch size and prints the table."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--batches", type=int, nargs="+", default=[512, 4096])
    parser.add_argument("--rounds", type=int, default=15)
    given = parser.parse_args()
    say(f"{machine()}, PyTorch {torch.__version__}, {torch.get_num_threads()} threads\n")
    say("| batch | what | ms | times the product | peak memory, batch x batch |")
    say("| ---: | --- | ---: | ---: | ---: |")
    peaks = {
        (batch, name): in_child(extra_bytes, batch, name) / (4 * batch**2)
        for batch in given.batches
        for name in ("product", *SCALES)
    }  # first: a process begins with the peak of the one that starts it
    for batch in given.batches:
        timings = side_by_side(candidates(batch), given.rounds)
        for name, timing in timings.items():
            times = ratio(timing.wall_s, timings["product"].wall_s)
            say(
                f"| {batch} | {name} | {1000 * timing.wall:.2f} | {times:.2f} | "
                f"{peaks[batch, name]:.1f} |"
            )


def candidates(batch: int) -> dict[str, Callable[[], object]]:
    """What is measured, each with its backward pass: ``product``, ``fixed``, ``variable``."""
    image, other = unit_rows(batch, seed=1), unit_rows(batch, seed=2)

    def product() -> tuple[Tensor, ...]:
        similarity = image @ other.T
        return torch.autograd.grad(similarity, (image, other), torch.ones_like(similarity))

    def loss(scale: float | None) -> tuple[Tensor, ...]:
        value = pair_loss(image, other, margin=MARGIN, image_margin_scale=scale)
        return torch.autograd.grad(value, (image, other))

    losses = {name: lambda scale=scale: loss(scale) for name, scale in SCALES.items()}
    return {"product": product, **losses}


def unit_rows(batch: int, seed: int) -> Tensor:
    """Random unit vectors, float32 (batch, 256), that ask for a gradient."""
    rows = torch.randn(batch, EMBEDDING_DIM, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.normalize(rows, dim=1).requires_grad_()


def extra_bytes(batch: int, name: str) -> int:
    """How far one candidate raises this process's peak memory after a run on few rows."""
    candidates(16)[name]()
    run = candidates(batch)[name]
    before = peak_bytes()
    run()
    return peak_bytes() - before


if __name__ == "__main__":
    main()
