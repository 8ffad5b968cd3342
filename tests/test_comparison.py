"""A comparison over seeds says what its numbers say."""

from typing import Any

import pytest

from trimodal.comparison import compare_margins
from trimodal.comparison_table import METRICS, comparison_table


def comparison(fixed: list[float], variable: list[float]) -> dict[str, Any]:
    """Runs whose every metric is the given number, one a seed."""
    runs = [
        {"margin_mode": mode, "seed": seed, "text_to_video": both(value)}
        for mode, values in (("fixed", fixed), ("variable", variable))
        for seed, value in enumerate(values)
    ]
    return {"seeds": list(range(len(fixed))), "runs": runs}


def both(value: float) -> dict[str, dict[str, float]]:
    return {mode: dict.fromkeys(METRICS, value) for mode in ("image", "image_audio")}


def test_means_and_paired_interval() -> None:
    table = comparison_table(comparison([10.0, 12.0, 14.0], [11.0, 14.0, 17.0]))
    assert "| all sentences, image alone | fixed | 12.0 |" in table
    assert "| all sentences, image alone | variable | 14.0 |" in table
    # differences 1, 2, 3: mean 2, standard error 1 / sqrt(3), t(0.975, 2) = 4.303
    assert "| | difference | +2.0 ± 2.5 |" in table


@pytest.mark.parametrize(
    ("variable", "verdict"),
    [([20.0, 21.0, 22.1], "a loss"), ([2.0, 3.0, 4.1], "a win"), ([5.0, 25.0, 12.0], "a tie")],
)
def test_the_verdict_follows_the_interval_of_the_mean_rank(
    variable: list[float], verdict: str
) -> None:
    table = comparison_table(comparison([10.0, 11.0, 12.0], variable))
    assert table.count(f": {verdict}") == 2


def test_seeds_are_paired_whatever_the_order_of_the_runs() -> None:
    content = comparison([10.0, 12.0, 14.0], [11.0, 14.0, 17.0])
    content["runs"].reverse()
    assert "+2.0 ± 2.5" in comparison_table(content)


def test_audio_is_judged_on_sentences_that_mention_a_sound() -> None:
    content = comparison([10.0, 11.0], [10.0, 11.0])
    for run in content["runs"]:
        run["sound_captions"] = {
            "image": dict.fromkeys(METRICS, 9.0 + run["seed"]),
            "image_audio": dict.fromkeys(METRICS, 5.0 + run["seed"]),
        }
    table = comparison_table(content)
    assert "with against without audio, fixed margin: a win" in table


def test_one_seed_is_refused() -> None:
    with pytest.raises(ValueError, match="two different seeds"):
        compare_margins([3, 3])
