"""Which clips validate: the authors' choice, and always enough."""

import random

import pytest

from trimodal.extract import hold_out


def authors_split(names: list[str], share: float) -> tuple[list[str], list[str]]:
    """As the authors' code is described: shuffled with seed 2020, the last share held out."""
    shuffled = sorted(names)
    random.seed(2020)
    random.shuffle(shuffled)
    held = int(share * len(shuffled))
    return shuffled[: len(shuffled) - held], shuffled[len(shuffled) - held :]


@pytest.mark.parametrize("count", [20, 30, 100, 1234])
def test_held_out_clips_are_the_authors(count: int) -> None:
    names = sorted(f"clip{i}" for i in range(count))
    train, val = authors_split(names, 0.1)
    assert hold_out(names, 0.1, 2020) == (sorted(train), sorted(val))


@pytest.mark.parametrize("count", [4, 19])
def test_at_least_two_clips_are_held_out(count: int) -> None:
    names = sorted(f"clip{i}" for i in range(count))
    train, val = hold_out(names, 0.1, 2020)
    assert len(val) == 2
    assert sorted(train + val) == names


def test_another_seed_holds_out_others() -> None:
    names = sorted(f"clip{i}" for i in range(100))
    assert hold_out(names, 0.1, 2020)[1] != hold_out(names, 0.1, 2021)[1]
