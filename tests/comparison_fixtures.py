"""Runs of known ranks."""

import numpy as np
import pyarrow as pa

from trimodal.report.comparison import Run, run_from


def ranks_table(image: np.ndarray, image_audio: np.ndarray) -> pa.Table:
    """What ``evaluate`` writes, as far as comparisons read it."""
    return pa.table(
        {
            "query_id": [f"q{number}" for number in range(len(image))],
            "rank_image": image.astype(np.float64),
            "rank_image_audio": image_audio.astype(np.float64),
        }
    )


def audit(**others: object) -> dict[str, object]:
    return {"test_csv": "t1", "protocol": "standard", "gallery": 100, "data": "d1"} | others


def run(name: str, seed: int, better: float = 0.0, queries: int = 200) -> Run:
    """A run whose ranks are those of its seed, all divided by 1 + ``better``."""
    rng = np.random.default_rng([seed, queries])
    hardness = np.random.default_rng(0).normal(2, 1, queries)
    image, audio = (
        np.ceil(np.exp(hardness + 0.5 * rng.standard_normal(queries)) / (1 + better))
        for _ in range(2)
    )
    return run_from(name, ranks_table(image, audio), audit())
