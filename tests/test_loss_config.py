"""Section ``loss``: the margins it sets; and the examples of the losses."""

import doctest
from dataclasses import asdict, replace
from types import ModuleType

import pytest
from training_fixtures import VARIABLE_MARGIN

from trimodal.core.config import ConfigError, parse_section
from trimodal.losses import info_nce, mined, ranking
from trimodal.losses.config import LossConfig

FIXED = replace(VARIABLE_MARGIN, margin_mode="fixed")


def test_margin_mode_chooses_the_variable_margins() -> None:
    assert FIXED.variable_margins(0.5) == (None, None)
    variable = replace(FIXED, margin_mode="variable")
    assert variable.variable_margins(0.5) == (0.4, None)
    assert replace(variable, variable_margin=0.0).variable_margins(0.5) == (0.0, None)
    assert replace(variable, margin_mode="variable_all").variable_margins(0.5) == (0.4, 0.4)


def test_the_variable_margin_moves_evenly_to_its_end() -> None:
    moving = replace(FIXED, margin_mode="variable", final_variable_margin=0.2)
    assert [moving.variable_margins(p).image for p in (0.0, 0.25, 1.0)] == pytest.approx(
        [0.4, 0.35, 0.2]
    )


@pytest.mark.parametrize("key", ["margin", "variable_margin", "final_variable_margin"])
def test_negative_margins_are_refused(key: str) -> None:
    with pytest.raises(ConfigError, match=rf"loss\.{key}: "):
        parse_section(asdict(FIXED) | {key: -0.1}, "loss", LossConfig)


@pytest.mark.parametrize("module", [ranking, mined, info_nce], ids=lambda module: module.__name__)
def test_the_example_of_each_loss_is_right(module: ModuleType) -> None:
    failed, attempted = doctest.testmod(module)
    assert attempted > 0
    assert failed == 0
