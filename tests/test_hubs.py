"""QB-Norm, dual softmax and hubness in blocks, against the functions of whole matrices."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from configs import MACHINE
from evaluation_fixtures import SET, config, text_video
from model_fixtures import make_tool
from training_fixtures import TinyData

from trimodal.core.records import DataError
from trimodal.evaluation import hubs
from trimodal.evaluation import task as task_module
from trimodal.evaluation.evaluate import evaluate
from trimodal.evaluation.hubness import hubness
from trimodal.evaluation.hubs import hub_metrics, training_captions
from trimodal.evaluation.query_bank import (
    BETA,
    dual_softmax_over_test_queries,
    query_bank,
)
from trimodal.evaluation.retrieval import best_true_ranks, similarity, truth_of
from trimodal.evaluation.task import Inputs
from trimodal.training.leaks import LeaksConfig


def unit(rows: int, seed: int) -> Any:
    drawn = np.random.default_rng(seed).standard_normal((rows, 8)).astype(np.float32)
    return drawn / np.linalg.norm(drawn, axis=1, keepdims=True)


def test_searches_in_blocks_are_those_of_the_whole_matrix(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trimodal.evaluation.retrieval._BLOCK_ROWS", 7)
    text, bank, items = unit(40, 1), unit(60, 2), unit(25, 3)
    owner = np.random.default_rng(4).permutation([*range(25), *range(15)])
    truth = truth_of(owner, [])
    metrics = hub_metrics(text, bank, lambda rows: similarity(rows, items), truth, 20)
    scores = similarity(text, items)
    expected = {
        "query_bank": query_bank([similarity(bank, items)]).normalise(scores),
        "dual_softmax_uses_test_queries": dual_softmax_over_test_queries(scores, 1 / BETA),
    }
    plain = best_true_ranks(scores, truth.toarray()).mean()
    for name, corrected in expected.items():
        mean = best_true_ranks(corrected, truth.toarray()).mean()
        assert metrics[name]["MeanR"] == pytest.approx(mean)
        assert mean != plain
        assert "intervals" in metrics[name]
    assert metrics["hubness"] == hubness([scores])
    assert hub_metrics(text[:9], None, lambda rows: similarity(rows, items[:9]),
                       truth_of(np.arange(9), []), 0) == {}  # fmt: skip


def test_the_bank_has_different_training_captions(tiny_data: TinyData) -> None:
    task: Any = SimpleNamespace(inputs=SimpleNamespace(captions=tiny_data.captions_dir))
    table = pq.read_table(tiny_data.captions_dir / "captions.parquet").to_pylist()
    training = {row["caption"] for row in table if row["split"] == "train"}
    assert any(row["split"] != "train" for row in table)
    chosen = training_captions(task, 10)
    assert chosen == training_captions(task, 10)
    assert len(set(chosen)) == 10
    assert set(chosen) <= training
    assert set(training_captions(task, len(training))) == training
    with pytest.raises(DataError, match=rf"{len(training)} different training captions"):
        training_captions(task, len(training) + 1)


def test_a_query_bank_is_a_switch_on_kept_embeddings(
    tiny_data: TinyData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tool = make_tool(tiny_data, tmp_path / "model")
    (tmp_path / "test.csv").write_text("video_id,sentence\nvideo9,a red dog\nvideo10,a blue bird\n")
    inputs = Inputs(
        model=tool.path, av=tiny_data.av_dir, captions=tiny_data.captions_dir,
        images=tiny_data.images_dir, world=tmp_path / "no world",
    )  # fmt: skip
    texts: list[int] = []
    embed = hubs.embed_sentences

    def counted(network: Any, sentences: Any, device: Any) -> Any:
        texts.append(len(sentences))
        return embed(network, sentences, device)

    def searches(count: int) -> set[str]:
        settings = config(
            text_video(str(tmp_path / "test.csv")), query_bank=count, min_effective_rank=1.0,
            max_mean_cosine=1.0,
        )  # fmt: skip
        evaluate(
            SET, inputs, tmp_path / "out", config=settings, machine=MACHINE,
            leaks=LeaksConfig(test_in_training="fail"),
        )  # fmt: skip
        return set(json.loads((tmp_path / "out" / "metrics.json").read_text())["text_to_video"])

    assert searches(0) == {"image", "image_audio"}
    monkeypatch.setattr(hubs, "embed_sentences", counted)
    corrected = {"image", "image_audio", "query_bank", "dual_softmax_uses_test_queries"}
    assert searches(12) == corrected
    assert texts == [12]
    monkeypatch.setattr(task_module, "load_model", lambda *_, **__: pytest.fail("loaded"))
    assert searches(12) == corrected
    assert searches(0) == {"image", "image_audio"}
