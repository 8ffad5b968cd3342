"""The ranking loss against loops written straight from the paper, values and gradients."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor
from training_fixtures import LiveBytes

from trimodal.losses.ranking import FullBatch, Reduction, _hinge_sum, pair_loss, variable_margins_of

REDUCTIONS: tuple[Reduction, ...] = ("mean", "sum")


def units(batch: int, dim: int, seed: int) -> Tensor:
    rows = torch.randn(batch, dim, generator=torch.Generator().manual_seed(seed)).double()
    return (rows / rows.norm(dim=1, keepdim=True)).requires_grad_()


def dot(p: Tensor, q: Tensor) -> Tensor:
    return torch.stack([p[k] * q[k] for k in range(len(p))]).sum()


def oracle_term(
    anchors: Tensor, others: Tensor, margin: Callable[[int, int], Tensor | float], reduction: str
) -> Tensor:
    """sum over j != i of max(0, s(x_i, y_j) - s(x_i, y_i) + m), pair by pair."""
    terms = []
    for i in range(len(anchors)):
        for j in range(len(others)):
            if j != i:
                hinge = dot(anchors[i], others[j]) - dot(anchors[i], others[i]) + margin(i, j)
                terms.append(torch.clamp(hinge, min=0))
    return torch.stack(terms).sum() / (len(terms) if reduction == "mean" else len(anchors))


def oracle_margin(images: Tensor, variable_margin: float, i: int, j: int) -> Tensor:
    """m' * sigmoid(-s(x_i, x_j)), in full."""
    return variable_margin / (1 + torch.exp(dot(images[i], images[j])))


def oracle_pair_loss(
    image: Tensor,
    other: Tensor,
    variable_margin: float | None,
    reduction: str,
    *,
    detach: bool = True,
) -> Tensor:
    frozen = image.detach() if detach else image

    def image_margin(i: int, j: int) -> Tensor | float:
        return 0.2 if variable_margin is None else oracle_margin(frozen, variable_margin, i, j)

    return oracle_term(image, other, image_margin, reduction) + oracle_term(
        other, image, lambda _i, _j: 0.2, reduction
    )


def gradients(loss: Tensor, *inputs: Tensor) -> tuple[Tensor, ...]:
    return torch.autograd.grad(loss, inputs)


def plain_pair_loss(
    image: Tensor, other: Tensor, variable_margin: float | None, reduction: str
) -> Tensor:
    """The oracle's value with whole matrices and plain autograd, for larger batches."""
    size = len(image)

    def term(similarity: Tensor, margin: Tensor | float) -> Tensor:
        hinges = torch.relu(similarity - similarity.diagonal()[:, None] + margin)
        negatives = hinges[~torch.eye(size, dtype=torch.bool)].sum()
        return negatives / (size * (size - 1) if reduction == "mean" else size)

    similarity, anchor_similarity = image @ other.T, (image @ image.T).detach()
    image_margin = (
        0.2 if variable_margin is None else variable_margin / (1 + anchor_similarity.exp())
    )
    return term(similarity, image_margin) + term(similarity.T, 0.2)


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("variable_margin", [None, 0.4])
@pytest.mark.parametrize("batch", [255, 256, 257, 600])
def test_blocks_of_rows_add_up_to_the_whole_batch(
    batch: int, variable_margin: float | None, reduction: Reduction
) -> None:
    image, other = units(batch, 8, 1), units(batch, 8, 2)
    ours = pair_loss(
        image, other, margin=0.2, image_variable_margin=variable_margin, reduction=reduction
    )
    plain = plain_pair_loss(image, other, variable_margin, reduction)
    torch.testing.assert_close(ours, plain, rtol=1e-12, atol=0)
    for mine, theirs in zip(
        gradients(ours, image, other), gradients(plain, image, other), strict=True
    ):
        torch.testing.assert_close(mine, theirs, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("variable_margin", [None, 0.4])
def test_memory_grows_with_the_batch_not_with_its_square(variable_margin: float | None) -> None:
    """At most a few blocks of 256 rows are in memory at once."""
    image, other = (units(2048, 8, seed).detach().float().requires_grad_() for seed in (1, 2))
    with LiveBytes() as live:
        pair_loss(image, other, margin=0.2, image_variable_margin=variable_margin).backward()
    assert live.largest == 256 * 2048
    assert live.peak < 6 * 256 * 2048 * image.element_size()


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("variable_margin", [None, 0.4])
def test_shares_of_rows_add_up_to_the_batchs_loss(
    variable_margin: float | None, reduction: Reduction
) -> None:
    """In uneven parts, one of them longer than a block; also their gradients."""
    image, other = units(600, 8, 1), units(600, 8, 2)
    options = {"margin": 0.2, "image_variable_margin": variable_margin, "reduction": reduction}
    shares = [
        pair_loss(
            image[rows], other[rows], **options, full_batch=FullBatch(image, other, rows.start)
        )
        for rows in (slice(0, 300), slice(300, 301), slice(301, 600))
    ]
    full = pair_loss(image, other, **options)
    torch.testing.assert_close(sum(shares), full, rtol=1e-12, atol=0)
    for mine, theirs in zip(
        gradients(sum(shares), image, other), gradients(full, image, other), strict=True
    ):
        torch.testing.assert_close(mine, theirs, rtol=1e-12, atol=1e-15)


def test_anchors_are_rows() -> None:
    """Row 0 is violated by 0.9 - 0.5 + 0.2, column 0 by -0.5 - 0.5 + 0.2, column 1 by 0.9 - 0.8 +
    0.2; row 1 by nothing. Only rows have the margin of images, here 0.4 / (1 + e^0).
    """
    image, other = torch.eye(2).double(), torch.tensor([[0.5, -0.5], [0.9, 0.8]]).double()
    loss = pair_loss(image, other, margin=0.2, image_variable_margin=0.4, reduction="sum")
    assert loss.item() == pytest.approx(0.6 / 2 + 0.3 / 2)
    loss = pair_loss(image, other, margin=0.2, image_variable_margin=1.0, reduction="sum")
    assert loss.item() == pytest.approx(0.9 / 2 + 0.3 / 2)


def test_true_pairs_are_not_negatives() -> None:
    corners = torch.eye(4, dtype=torch.float64)
    assert pair_loss(corners, corners, margin=0.2, image_variable_margin=None).item() == 0


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_fixed_pair_loss_passes_gradcheck(reduction: Reduction) -> None:
    """The variable margin is detached, which finite differences cannot see."""
    assert torch.autograd.gradcheck(
        lambda v, a: pair_loss(v, a, margin=0.2, image_variable_margin=None, reduction=reduction),
        (units(4, 3, 9), units(4, 3, 10)),
    )


@pytest.mark.parametrize("batch", [0, 1])
def test_fewer_than_two_pairs_are_refused(batch: int) -> None:
    with pytest.raises(ValueError, match="two pairs"):
        pair_loss(
            torch.ones(batch, 3), torch.ones(batch, 3), margin=0.2, image_variable_margin=None
        )


def test_variable_margin_is_the_scaled_sigmoid_of_the_negated_similarity() -> None:
    images = units(6, 4, 11)
    margin = variable_margins_of(images @ images.T, 0.4)
    for i in range(6):
        for j in range(6):
            assert margin[i, j].item() == pytest.approx(oracle_margin(images, 0.4, i, j).item())


def test_similar_anchors_get_a_small_margin_and_dissimilar_ones_a_large_one() -> None:
    same, orthogonal, opposite = variable_margins_of(
        torch.tensor([[1.0, 0.0, -1.0]]).expand(3, 3), 0.4
    )[0].tolist()
    assert same == pytest.approx(0.4 / (1 + math.e))
    assert orthogonal == pytest.approx(0.2)
    assert opposite == pytest.approx(0.4 / (1 + 1 / math.e))


def test_variable_margin_has_no_gradient() -> None:
    images = units(3, 4, 12)
    assert not variable_margins_of(images @ images.T, 0.4).requires_grad


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("variable_margin", [None, 0.4, 1.3])
def test_pair_loss_is_the_papers_two_terms(
    variable_margin: float | None, reduction: Reduction
) -> None:
    image, other = units(6, 4, 13), units(6, 4, 14)
    ours = pair_loss(
        image, other, margin=0.2, image_variable_margin=variable_margin, reduction=reduction
    )
    oracle = oracle_pair_loss(image, other, variable_margin, reduction)
    torch.testing.assert_close(ours, oracle)
    for mine, theirs in zip(
        gradients(ours, image, other), gradients(oracle, image, other), strict=True
    ):
        torch.testing.assert_close(mine, theirs)


def test_no_gradient_flows_through_the_margin() -> None:
    """The gradient through the margin differs, so the test above can fail."""
    image, other = units(6, 4, 13), units(6, 4, 14)
    ours = pair_loss(image, other, margin=0.2, image_variable_margin=0.4)
    stopped = oracle_pair_loss(image, other, 0.4, "mean")
    flowing = oracle_pair_loss(image, other, 0.4, "mean", detach=False)
    torch.testing.assert_close(stopped, flowing)
    (gradient,) = gradients(ours, image)
    torch.testing.assert_close(gradient, gradients(stopped, image)[0])
    assert (gradient - gradients(flowing, image)[0]).abs().max() > 1e-3


def test_margin_varies_with_the_images_that_are_anchors() -> None:
    """Twin images with twin partners: every similarity is 1, so each term is its own margin."""
    twins = torch.tensor([[1.0, 0.0], [1.0, 0.0]])
    loss = pair_loss(twins, twins, margin=0.2, image_variable_margin=0.4)
    assert loss.item() == pytest.approx(0.4 / (1 + math.e) + 0.2)


def test_margin_of_the_other_modalitys_anchors_is_fixed() -> None:
    """Orthogonal images, twin others: the image term has 0.4 * sigmoid(0), the other one 0.7."""
    images, others = torch.eye(2), torch.full((2, 2), math.sqrt(0.5))
    loss = pair_loss(images, others, margin=0.7, image_variable_margin=0.4)
    assert loss.item() == pytest.approx(0.2 + 0.7)


def test_orthogonal_images_make_the_variable_margin_the_fixed_one() -> None:
    images, others = torch.eye(5).double(), units(5, 5, 15)
    fixed = pair_loss(images, others, margin=0.2, image_variable_margin=None)
    variable = pair_loss(images, others, margin=0.2, image_variable_margin=0.4)
    torch.testing.assert_close(variable, fixed)


def test_all_anchors_may_have_the_variable_margin() -> None:
    image, other = units(5, 4, 21), units(5, 4, 22)
    ours = pair_loss(image, other, margin=9.0, image_variable_margin=0.4, other_variable_margin=0.3)
    frozen = other.detach()
    image_term = oracle_term(image, other, partial(oracle_margin, image.detach(), 0.4), "mean")
    other_term = oracle_term(other, image, partial(oracle_margin, frozen, 0.3), "mean")
    torch.testing.assert_close(ours, image_term + other_term)
    assert_close = torch.testing.assert_close
    assert_close(gradients(ours, image, other), gradients(image_term + other_term, image, other))


def hinge_inputs() -> tuple[Tensor, Tensor]:
    """Rows 2 to 5 of a batch of 8."""
    return units(4, 3, 23), units(8, 3, 24)


def hinge_margins(kind: str) -> Tensor | float:
    """Either a number or a matrix of anchors x batch."""
    if kind == "fixed":
        return 0.2
    anchors = units(4, 3, 23).detach()
    return variable_margins_of(anchors @ units(8, 3, 25).detach().T, 0.4)


def slow_hinges(anchors: Tensor, others: Tensor, margins: Tensor | float) -> list[Tensor]:
    """s(x_i, y_j) - s(x_i, y_i) + margin, pair by pair; anchor 0's partner is others[2]."""
    margins = torch.as_tensor(margins).expand(4, 8)
    return [
        dot(anchors[i], others[j]) - dot(anchors[i], others[i + 2]) + margins[i, j]
        for i in range(4)
        for j in range(8)
        if j != i + 2
    ]


@pytest.mark.parametrize("kind", ["fixed", "variable"])
def test_hinge_sum_is_the_sum_over_all_negatives(kind: str) -> None:
    anchors, others = hinge_inputs()
    margins = hinge_margins(kind)
    ours = _hinge_sum(anchors, others, 2, lambda _: margins)
    hinges = slow_hinges(anchors, others, margins)
    assert 3 < sum(hinge.item() > 0 for hinge in hinges) < len(hinges) - 3
    slow = torch.stack([torch.clamp(hinge, min=0) for hinge in hinges]).sum()
    torch.testing.assert_close(ours, slow)
    for mine, theirs in zip(
        gradients(3 * ours, anchors, others), gradients(3 * slow, anchors, others), strict=True
    ):
        torch.testing.assert_close(mine, theirs)


@pytest.mark.parametrize("kind", ["fixed", "variable"])
def test_hinge_sum_passes_gradcheck_away_from_kinks(kind: str) -> None:
    anchors, others = hinge_inputs()
    margins = hinge_margins(kind)
    assert min(abs(hinge.item()) for hinge in slow_hinges(anchors, others, margins)) > 1e-4
    assert torch.autograd.gradcheck(
        lambda x, y: _hinge_sum(x, y, 2, lambda _: margins), (anchors, others), eps=1e-6
    )


@pytest.mark.parametrize("without_gradient", [torch.no_grad, torch.inference_mode])
def test_hinge_sum_needs_no_gradient_in_validation(without_gradient: Callable[[], Any]) -> None:
    anchors, others = hinge_inputs()
    trained = _hinge_sum(anchors, others, 2, lambda _: 0.2)
    assert trained.requires_grad
    with without_gradient():
        validated = _hinge_sum(anchors, others, 2, lambda _: 0.2)
    assert not validated.requires_grad
    assert validated.item() == trained.item()
    detached = _hinge_sum(anchors.detach(), others.detach(), 2, lambda _: 0.2)
    assert not detached.requires_grad
    assert detached.item() == trained.item()


def test_hinge_sum_has_no_second_derivative() -> None:
    """Otherwise a penalty on the gradient would be treated as a constant."""
    anchors, others = hinge_inputs()
    total = _hinge_sum(anchors, others, 2, lambda _: 0.2)
    with pytest.raises(RuntimeError, match="no second derivative"):
        torch.autograd.grad(total, anchors, create_graph=True)
    with pytest.raises(RuntimeError, match="no second derivative"):
        total.square().backward(create_graph=True)
    total.backward(retain_graph=True)
    assert anchors.grad is not None
