"""Hardest and semi-hard negatives against loops written straight from their papers."""

from collections.abc import Callable

import pytest
import torch
from test_ranking import dot, gradients, oracle_margin, units
from torch import Tensor

from trimodal.losses.mined import Mining, mined_loss
from trimodal.losses.ranking import FullBatch

MININGS: tuple[Mining, ...] = ("hardest", "semi_hard")


def oracle_mined(
    anchors: Tensor, others: Tensor, margin: Callable[[int, int], Tensor | float], mining: Mining
) -> Tensor:
    """One negative for each anchor, searched pair by pair."""
    total = torch.zeros((), dtype=torch.double)
    for i in range(len(anchors)):
        positive = dot(anchors[i], others[i])
        best = None
        for j in range(len(others)):
            similarity = dot(anchors[i], others[j])
            if j == i or (mining == "semi_hard" and not similarity < positive):
                continue
            hinge = similarity - positive + margin(i, j)
            best = hinge if best is None or hinge > best else best
        if best is not None and best > 0:
            total = total + best
    return total / len(anchors)


@pytest.mark.parametrize("mining", MININGS)
@pytest.mark.parametrize("variable_margin", [None, 0.4])
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_one_negative_for_each_anchor(
    mining: Mining, variable_margin: float | None, seed: int
) -> None:
    image, other = units(6, 3, seed), units(6, 3, seed + 100)

    def margin_of(rows: Tensor) -> Callable[[int, int], Tensor | float]:
        frozen, m = rows.detach(), variable_margin
        return lambda i, j: 0.2 if m is None else oracle_margin(frozen, m, i, j)

    ours = mined_loss(
        image,
        other,
        mining=mining,
        margin=0.2,
        image_variable_margin=variable_margin,
        other_variable_margin=variable_margin,
    )
    slow = oracle_mined(image, other, margin_of(image), mining) + oracle_mined(
        other, image, margin_of(other), mining
    )
    torch.testing.assert_close(ours, slow)
    assert slow > 0
    torch.testing.assert_close(gradients(ours, image, other), gradients(slow, image, other))


def test_semi_hard_negatives_are_farther_than_the_partner() -> None:
    """The only negative is nearer than the partner: hardest counts it, semi-hard has none."""
    image = torch.eye(2)
    other = torch.eye(2).flip(0)
    assert mined_loss(image, other, mining="hardest", margin=0.2).item() == pytest.approx(2.4)
    assert mined_loss(image, other, mining="semi_hard", margin=0.2).item() == 0


@pytest.mark.parametrize("mining", MININGS)
def test_shares_of_the_rows_add_up_to_the_batch(mining: Mining) -> None:
    image, other = units(7, 4, 9), units(7, 4, 10)

    def loss(rows: slice) -> Tensor:
        return mined_loss(
            image[rows], other[rows], mining=mining, margin=0.2, image_variable_margin=0.4,
            full_batch=FullBatch(image, other, rows.start),
        )  # fmt: skip

    shares = loss(slice(0, 3)) + loss(slice(3, 7))
    full = loss(slice(0, 7))
    torch.testing.assert_close(shares, full)
    torch.testing.assert_close(gradients(shares, image, other), gradients(full, image, other))


def test_a_single_pair_is_refused() -> None:
    one = torch.ones(1, 3)
    with pytest.raises(ValueError, match="two pairs"):
        mined_loss(one, one, mining="hardest", margin=0.2)
