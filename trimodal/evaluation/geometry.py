"""How much of the embedding space is used: effective rank and mean cosine, to detect a collapse."""

import numpy as np
from jaxtyping import Float


def effective_rank(rows: Float[np.ndarray, "items dim"]) -> float:
    """Effective rank (Roy & Vetterli 2007): exp of the entropy of the singular values, normalised
    to sum to 1; from 1 (all rows on one line) to min(items, dim) (all directions used equally).

    Rows are not centred: centred, equal rows would be rounding errors of any rank; as they are,
    they have rank 1. Raises ValueError if there are no rows or only zeros.
    """
    values = np.linalg.svd(rows.astype(np.float64), compute_uv=False)
    if not values.sum() > 0:
        raise ValueError("an effective rank needs a row that is not zero")
    shares = values[values > 0] / values.sum()
    return max(1.0, float(np.exp(-(shares * np.log(shares)).sum())))


def mean_cosine(rows: Float[np.ndarray, "items dim"]) -> float:
    """The mean cosine over all pairs of different rows, in [-1, 1]; 1 if all rows are equal.

    Sum over i != j of u_i . u_j = |sum of u_i|^2 - items, so no (items, items) matrix is needed.
    Raises ValueError for fewer than two rows and for a row of zeros.
    """
    items = len(rows)
    lengths = np.linalg.norm(rows.astype(np.float64), axis=1, keepdims=True)
    if items < 2 or not lengths.all():
        raise ValueError("a mean cosine needs two rows or more, none of them zero")
    total = (rows / lengths).sum(axis=0)
    cosine = (float(total @ total) - items) / (items * (items - 1))
    return min(1.0, max(-1.0, cosine))
