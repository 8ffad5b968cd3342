"""How well a map over a picture agrees with boxes: consensus IoU, success at 0.5 and the area under
the success curve, as VGG-SS and Flickr-SoundNet are evaluated (docs/evaluation.md).
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from jaxtyping import Bool, Float

MAP_PX = 224  # the size at which the published code compares
_THRESHOLDS = 0.05 * np.arange(21)
_INTERVAL_PERCENT = (2.5, 97.5)
_SEED = 0  # of the resampling: the same maps always have the same interval

Map = Float[np.ndarray, "224 224"]
Region = Bool[np.ndarray, "224 224"]


def true_map(boxes: Sequence[Sequence[float]], agreeing: int) -> Map:
    """The share of agreement on each pixel: the number of boxes that it is in, divided by
    ``agreeing`` and at most 1. Boxes are left, top, right, bottom as shares of the picture; their
    edges are rounded down to whole pixels.
    """
    votes = np.zeros((MAP_PX, MAP_PX), np.float32)
    for box in boxes:
        left, top, right, bottom = (int(MAP_PX * edge) for edge in box)
        votes[top:bottom, left:right] += 1
    return np.minimum(votes / agreeing, 1)


def upper_half(heat: Map) -> Region:
    """The pixels above the median, the published rule: one less than half of them, fewer if values
    are the same.
    """
    region: Region = heat > np.sort(heat, axis=None)[heat.size // 2]
    return region


def as_many_as_true(heat: Map, truth: Map) -> Region:
    """As many of the highest pixels as are true, fewer if values are the same."""
    others = heat.size - int((truth > 0).sum())
    if not others:
        return np.ones(heat.shape, bool)
    region: Region = heat > np.sort(heat, axis=None)[others - 1]
    return region


def best_half(truth: Map) -> Region:
    """Of the regions with as many pixels as :func:`upper_half` has if no values are the same, one
    with the largest cIoU.
    """
    region = np.zeros(truth.size, bool)
    region[np.argsort(-truth, axis=None, kind="stable")[: truth.size // 2 - 1]] = True
    return region.reshape(truth.shape)


def nearness_to_centre() -> Map:
    """A map that knows nothing of the picture: highest in its centre."""
    away = np.arange(MAP_PX) - (MAP_PX - 1) / 2
    nearness: Map = -np.hypot(away[:, None], away).astype(np.float32)
    return nearness


def consensus_iou(region: Region, truth: Map) -> float:
    """cIoU (Senocak et al. 2018, equation 9): the agreement inside the region, divided by all
    agreement and the region's pixels in no box.
    """
    outside = int((region & (truth == 0)).sum())
    return float(truth[region].sum(dtype=np.float64) / (truth.sum(dtype=np.float64) + outside))


def summarise_cious(cious: npt.NDArray[np.float64], resamples: int) -> dict[str, Any]:
    """In percent: ``cIoU@0.5``, the share of items with a cIoU of at least 0.5, which papers call
    cIoU or AP50; ``AUC``, the area by the trapezoidal rule under that share at thresholds 0, 0.05,
    ..., 1; ``cIoU``, the mean. With ``resamples``, ``intervals`` are their central 95 % over
    bootstrap resamples of the items.
    """
    reached = (cious[:, None] >= _THRESHOLDS).astype(np.float64)
    of_items = {
        "cIoU@0.5": (cious >= 0.5).astype(np.float64),
        "AUC": np.trapezoid(reached, _THRESHOLDS, axis=1),
        "cIoU": cious,
    }
    summary: dict[str, Any] = {name: 100 * float(of.mean()) for name, of in of_items.items()}
    if resamples:
        summary["intervals"] = _intervals(of_items, len(cious), resamples)
    return summary


def _intervals(
    of_items: Mapping[str, npt.NDArray[np.float64]], items: int, resamples: int
) -> dict[str, list[float]]:
    """All three measures are means over items."""
    counts = np.random.default_rng(_SEED).multinomial(items, [1 / items] * items, resamples)
    return {
        name: [float(b) for b in np.percentile(100 * counts @ of / items, _INTERVAL_PERCENT)]
        for name, of in of_items.items()
    }
