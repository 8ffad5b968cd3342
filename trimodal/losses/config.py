"""Section ``loss``, and the loss that it names."""

from dataclasses import dataclass
from typing import Literal, NamedTuple

from jaxtyping import Float
from torch import Tensor

from trimodal.losses.info_nce import info_nce
from trimodal.losses.mined import mined_loss
from trimodal.losses.ranking import Reduction, WholeBatch, pair_loss


@dataclass(frozen=True, kw_only=True)
class LossConfig:
    """Section ``loss``. ``hinges`` are the paper's, over all negatives; the other kinds are in
    :mod:`trimodal.losses.contrastive`. ``fixed`` uses ``margin`` everywhere; ``variable`` uses m' =
    ``variable_scale`` on image anchors (paper.md, Losses), ``variable_all`` on all. With
    ``final_scale`` m' moves to it, evenly from the first epoch to the last. Similarities are
    divided by ``margin_temperature`` in the margin's sigmoid (the paper: 1). ``reduction`` is over
    the hinges' negatives, ``temperature`` where InfoNCE's, which is learned, begins.
    """

    kind: Literal["hinges", "hardest", "semi_hard", "info_nce"]
    margin_mode: Literal["fixed", "variable", "variable_all"]
    margin: float
    variable_scale: float
    final_scale: float | None
    margin_temperature: float
    reduction: Reduction
    temperature: float

    def __post_init__(self) -> None:
        if min(self.margin, self.variable_scale, self.final_scale or 0.0) < 0:
            raise ValueError("loss: margin, variable_scale and final_scale are not negative")
        if self.margin_temperature <= 0:
            raise ValueError("loss.margin_temperature must be positive")
        if self.temperature < 0.01:
            raise ValueError("loss.temperature must be at least 0.01")

    def margin_scales(self, progress: float) -> "MarginScales":
        """m' when the share ``progress`` of the epochs' way is gone, in [0, 1]."""
        final = self.variable_scale if self.final_scale is None else self.final_scale
        scale = self.variable_scale + (final - self.variable_scale) * progress
        return MarginScales(
            image=None if self.margin_mode == "fixed" else scale,
            other=scale if self.margin_mode == "variable_all" else None,
        )


class MarginScales(NamedTuple):
    """m' of image anchors and of the others; None where their margin is fixed."""

    image: float | None
    other: float | None


def configured_loss(
    image: Float[Tensor, "rows dim"],
    other: Float[Tensor, "rows dim"],
    config: LossConfig,
    *,
    progress: float,
    scale: Float[Tensor, ""],
    whole: WholeBatch | None = None,
) -> Float[Tensor, ""]:
    """The loss that section ``loss`` names, when the share ``progress`` of the epochs' way is gone;
    ``scale`` is InfoNCE's alone. Raises ValueError for fewer than two pairs.
    """
    if config.kind == "info_nce":
        return info_nce(image, other, scale, whole=whole)
    scales = config.margin_scales(progress)
    if config.kind == "hinges":
        return pair_loss(
            image, other, margin=config.margin, image_margin_scale=scales.image,
            other_margin_scale=scales.other, margin_temperature=config.margin_temperature,
            reduction=config.reduction, whole=whole,
        )  # fmt: skip
    return mined_loss(
        image, other, mining=config.kind, margin=config.margin, image_margin_scale=scales.image,
        other_margin_scale=scales.other, margin_temperature=config.margin_temperature, whole=whole,
    )  # fmt: skip
