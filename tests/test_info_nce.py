"""InfoNCE against a loop written straight from the definition, and its learned temperature."""

import math

import pytest
import torch
from test_ranking import dot, gradients, units
from torch import Tensor

from trimodal.losses.info_nce import LogitScale, info_nce
from trimodal.losses.ranking import FullBatch


@pytest.mark.parametrize("logit_scale", [1.0, 14.3])
def test_info_nce_is_the_logarithm_of_a_softmax(logit_scale: float) -> None:
    image, other = units(5, 4, 7), units(5, 4, 8)

    def one_way(anchors: Tensor, others: Tensor) -> Tensor:
        terms = []
        for i in range(5):
            powers = torch.stack(
                [torch.exp(logit_scale * dot(anchors[i], others[j])) for j in range(5)]
            )
            terms.append(-torch.log(powers[i] / powers.sum()))
        return torch.stack(terms).mean()

    ours, slow = info_nce(image, other, logit_scale), one_way(image, other) + one_way(other, image)
    torch.testing.assert_close(ours, slow)
    torch.testing.assert_close(gradients(ours, image, other), gradients(slow, image, other))


def test_shares_of_the_rows_add_up_to_the_batch() -> None:
    image, other = units(7, 4, 9), units(7, 4, 10)

    def loss(rows: slice) -> Tensor:
        full_batch = FullBatch(image, other, rows.start)
        return info_nce(image[rows], other[rows], 5.0, full_batch=full_batch)

    shares = loss(slice(0, 3)) + loss(slice(3, 7))
    full = loss(slice(0, 7))
    torch.testing.assert_close(shares, full)
    torch.testing.assert_close(gradients(shares, image, other), gradients(full, image, other))


def test_the_logit_scale_begins_at_the_temperature_and_ends_at_a_hundred() -> None:
    logit_scale = LogitScale(0.05)
    assert logit_scale().item() == pytest.approx(20)
    with torch.no_grad():
        logit_scale.log_scale.fill_(math.log(1e6))
    assert logit_scale().item() == pytest.approx(100)


def test_a_single_pair_is_refused() -> None:
    one = torch.ones(1, 3)
    with pytest.raises(ValueError, match="two pairs"):
        info_nce(one, one, 1.0)
