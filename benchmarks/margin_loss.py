"""The ranking losses against one matrix product: ``python -m benchmarks.margin_loss``.

Times the forward and backward pass of the loss between 256-dimensional unit vectors, both
directions, with the fixed and the variable margin, against those of ``image @ other.T`` alone: in
turn in one process, float32. Peak memory is what a fresh process needs above its start, in units of
a batch x batch matrix. Needs 1 GB of memory.
"""

import argparse
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from benchmarks.measuring import describe_machine, in_child, peak_bytes, ratio, say, side_by_side
from trimodal.core.arguments import Distinct, positive
from trimodal.losses.ranking import pair_loss

EMBEDDING_DIM = 256
MARGIN = 0.2
VARIABLE_MARGINS = {"fixed": None, "variable": 2 * MARGIN}


def main() -> None:
    """Measures every batch size and prints the table."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--batches", type=positive, nargs="+", action=Distinct, default=[512, 4096])
    parser.add_argument("--rounds", type=positive, default=15)
    args = parser.parse_args()
    say(f"{describe_machine()}, PyTorch {torch.__version__}, {torch.get_num_threads()} threads\n")
    say("| batch | computation | ms | times the product | peak memory, batch x batch |")
    say("| ---: | --- | ---: | ---: | ---: |")
    peaks = {
        (batch, name): in_child(extra_bytes, batch, name) / (4 * batch**2)
        for batch in args.batches
        for name in ("product", *VARIABLE_MARGINS)
    }  # before the timing: a process starts with the peak of its parent
    for batch in args.batches:
        timings = side_by_side(candidates(batch), args.rounds)
        for name, timing in timings.items():
            times = ratio(timing.wall_s, timings["product"].wall_s)
            say(
                f"| {batch} | {name} | {1000 * timing.wall:.2f} | {times:.2f} | "
                f"{peaks[batch, name]:.1f} |"
            )


def candidates(batch: int) -> dict[str, Callable[[], object]]:
    """The computations, each with its backward pass: ``product``, ``fixed``, ``variable``."""
    image, other = unit_rows(batch, seed=1), unit_rows(batch, seed=2)

    def product() -> tuple[Tensor, ...]:
        similarity = image @ other.T
        return torch.autograd.grad(similarity, (image, other), torch.ones_like(similarity))

    def loss(variable_margin: float | None) -> tuple[Tensor, ...]:
        value = pair_loss(image, other, margin=MARGIN, image_variable_margin=variable_margin)
        return torch.autograd.grad(value, (image, other))

    losses = {name: partial(loss, value) for name, value in VARIABLE_MARGINS.items()}
    return {"product": product, **losses}


def unit_rows(batch: int, seed: int) -> Tensor:
    """Random unit vectors, float32 (batch, 256), that require a gradient."""
    rows = torch.randn(batch, EMBEDDING_DIM, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.normalize(rows, dim=1).requires_grad_()


def extra_bytes(batch: int, name: str) -> int:
    """By how much a computation raises this process's peak memory, after a warm-up on few rows."""
    candidates(16)[name]()
    run = candidates(batch)[name]
    before = peak_bytes()
    run()
    return peak_bytes() - before


if __name__ == "__main__":
    main()
