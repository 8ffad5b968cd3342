"""Section ``loss``, and the loss that it selects."""

from typing import Annotated, Literal, NamedTuple

from jaxtyping import Float
from pydantic import Field, NonNegativeFloat, PositiveFloat
from pydantic.dataclasses import dataclass as section_dataclass
from torch import Tensor

from trimodal.core.config import SECTION
from trimodal.losses.info_nce import info_nce
from trimodal.losses.mined import mined_loss
from trimodal.losses.ranking import FullBatch, Reduction, pair_loss


@section_dataclass(frozen=True, kw_only=True, config=SECTION)
class LossConfig:
    """Section ``loss``. Kind ``hinges`` is the paper's ranking loss over all negatives
    (:mod:`trimodal.losses.ranking`), ``hardest`` and ``semi_hard`` mine one negative for each
    anchor (:mod:`trimodal.losses.mined`), ``info_nce`` is :mod:`trimodal.losses.info_nce`.

    ``margin_mode`` ``fixed``: every margin is m = ``margin``. ``variable``: image anchors have the
    variable margin with m' = ``variable_margin`` (docs/method.md, Losses). ``variable_all``: all
    anchors have it. With ``final_variable_margin`` m' moves linearly to that value from the first
    epoch to the last. ``margin_temperature`` divides the similarities in the margin's sigmoid (the
    paper: 1). ``reduction`` is that of ``hinges``. ``temperature`` is the initial value of
    InfoNCE's learned temperature.
    """

    kind: Literal["hinges", "hardest", "semi_hard", "info_nce"]
    margin_mode: Literal["fixed", "variable", "variable_all"]
    margin: NonNegativeFloat
    variable_margin: NonNegativeFloat
    final_variable_margin: NonNegativeFloat | None
    margin_temperature: PositiveFloat
    reduction: Reduction
    temperature: Annotated[float, Field(ge=0.01)]

    def variable_margins(self, progress: float) -> "VariableMargins":
        """m' of both directions at ``progress``, in [0, 1], through the training."""
        first, last = self.variable_margin, self.final_variable_margin
        current = first if last is None else first + (last - first) * progress
        return VariableMargins(
            image=None if self.margin_mode == "fixed" else current,
            other=current if self.margin_mode == "variable_all" else None,
        )


class VariableMargins(NamedTuple):
    """m' of image anchors and of the other modality's; None where the margin is fixed."""

    image: float | None
    other: float | None


def configured_loss(
    image: Float[Tensor, "rows dim"],
    other: Float[Tensor, "rows dim"],
    config: LossConfig,
    *,
    progress: float,
    logit_scale: Float[Tensor, ""],
    full_batch: FullBatch | None = None,
) -> Float[Tensor, ""]:
    """The loss that section ``loss`` selects, at ``progress``, in [0, 1], through the training;
    only InfoNCE uses ``logit_scale``. Arguments and errors as of
    :func:`~trimodal.losses.ranking.pair_loss`.
    """
    if config.kind == "info_nce":
        return info_nce(image, other, logit_scale, full_batch=full_batch)
    margins = config.variable_margins(progress)
    if config.kind == "hinges":
        return pair_loss(
            image, other, margin=config.margin, image_variable_margin=margins.image,
            other_variable_margin=margins.other, margin_temperature=config.margin_temperature,
            reduction=config.reduction, full_batch=full_batch,
        )  # fmt: skip
    return mined_loss(
        image, other, mining=config.kind, margin=config.margin, image_variable_margin=margins.image,
        other_variable_margin=margins.other, margin_temperature=config.margin_temperature,
        full_batch=full_batch,
    )  # fmt: skip
