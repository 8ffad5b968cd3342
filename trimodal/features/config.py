"""Section ``features``, and the stage where nothing is frozen, without PyTorch."""

from pathlib import Path

from pydantic import NonNegativeInt, PositiveInt
from pydantic.dataclasses import dataclass

from trimodal.core.config import SECTION
from trimodal.core.files import remove


@dataclass(frozen=True, kw_only=True, config=SECTION)
class FeaturesConfig:
    """Section ``features``. A frozen image tower sees ``views`` of each picture: its centre, and
    the others as section ``augment`` has them, drawn with ``seed``. The weights of a frozen tower
    that is not pretrained are drawn with ``seed``, too.
    """

    views: PositiveInt
    seed: NonNegativeInt


def make_nothing(out_dir: Path) -> None:
    """What the stage leaves where nothing is frozen: an empty folder."""
    remove(out_dir)
    out_dir.mkdir(parents=True)
