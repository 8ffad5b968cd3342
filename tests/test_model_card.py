"""The model card states the facts of the run whose metrics it is written with."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from model_fixtures import FACTS, Tool
from repository import ROOT

from trimodal.models.model_card import described_weights
from trimodal.models.model_card import model_card as card_of_weights
from trimodal.report.model_card import model_card
from trimodal.report.results import Results


def summary(r1: float) -> dict[str, float]:
    return {"R@1": r1, "R@5": 2 * r1, "R@10": 3 * r1, "MedR": 12.0, "MeanR": 21.5}


RETRIEVAL = {
    "text_to_video": {"image": summary(10.0), "image_audio": summary(11.0)},
    "directions": {"text_to_image": summary(10.0), "image_to_text": summary(9.0)},
}
AUDIT = {
    "kind": "text_video", "model": "w1", "protocol": "standard", "audio_weight": 0.2,
    "queries": 50, "gallery": 50,
    "gallery_without_audio": 3, "unknown_word_share": 0.0123, "videos_seen_in_training_kept": 0,
    "videos_seen_in_training_left_out": 0,
}  # fmt: skip


WITHOUT_SETS = Results(
    main=None, metrics={}, audits={}, audio_weight_curve=[], losses={}, epoch=7, comparison={}
)
RESULTS = replace(
    WITHOUT_SETS, main="msrvtt", metrics={"msrvtt": RETRIEVAL}, audits={"msrvtt": AUDIT}
)


def test_it_states_data_training_metrics_and_limits() -> None:
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    card = model_card(FACTS, params, RESULTS)
    for fact in (
        "image and sentence by human captions;",
        "`a1`",
        "`t1`",
        "`v1`",
        "`w1`",
        "margin_mode variable",
        "epoch 7 was selected",
        "Audio: ResNet-18, initial weights: imagenet",
        "trained only on drawings",
        "a convolutional network over 16 words, their vectors frozen",
        "10% of the training",
    ):
        assert fact in card
    row = next(
        line for line in card.splitlines() if line.startswith("| text to video, image + audio")
    )
    assert "| 33.0 | 12.0 |" in row
    assert "1.2%" in card


def test_for_real_data_it_mentions_no_drawings() -> None:
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    params["download"]["source"] = "files"
    params["captions"] |= {"coco": "", "flickr30k": "folder/flickr"}
    card = model_card(FACTS, params, RESULTS)
    assert "`folder/flickr`" in card
    assert "drawings" not in card


def test_it_reads_what_train_writes(tool: Tool) -> None:
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    model = json.loads((tool.path / "config.json").read_text())
    card = model_card(model | {"data": FACTS["data"]}, params, RESULTS)
    assert f"(vocabulary `{model['text_input']}`)" in card
    assert "unit vectors of 256 numbers" in card


def test_of_towers_and_videos_alone_without_any_test_set() -> None:
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    params["download"]["source"] = "videos"
    params["captions"] |= {"coco": "data/world", "coco_annotations": "none", "flickr30k": ""}
    network = {
        "text_network": "open_clip:ViT-B-32/x", "text_weights": "pretrained",
        "audio_backbone": "timm:tiny", "embedding_dim": 512, "freeze": ["image", "text"],
    }  # fmt: skip
    facts = FACTS | {"model": FACTS["model"] | network}
    card = model_card(facts, params, WITHOUT_SETS)
    for fact in (
        "unit vectors of 512 numbers",
        "Video: videos from a folder",
        "image and sentence by what their towers had learned before;",
        "Captioned images: none (",
        "Audio: timm:tiny",
        "Sentences: open_clip:ViT-B-32/x, initial weights: pretrained.",
        "only their heads learned: image, text.",
        "It was tested on nothing: there is no test set.",
    ):
        assert fact in card
    assert "vector, of their own" not in card
    assert "Chance" not in card
    audits = {"esc": {"kind": "zero_shot", "modality": "sound"}}
    tested = replace(WITHOUT_SETS, metrics={"esc": {"top1": 47.25}}, audits=audits)
    card = model_card(facts, params, tested)
    assert "| esc | zero-shot classification | top1 47.2 |" in card
    assert "tested on nothing" not in card


def test_folder_names_stay_code_and_add_no_lines() -> None:
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    params["download"]["source"] = "files"
    params["captions"] |= {"coco": "a`b<script>\n# c", "flickr30k": "x|y"}
    card = model_card(FACTS, params, RESULTS)
    assert "- Captioned images: `` a`b<script> # c ``, `x|y` (" in card
    assert [line for line in card.splitlines() if line.startswith("# ")] == ["# Model card"]


def test_the_committed_card_is_of_the_committed_run() -> None:
    card = Path(ROOT / "metrics/report/model_card.md").read_text()
    audits = json.loads((ROOT / "metrics/audit.json").read_text())
    assert f"`{audits['msrvtt']['model']}`" in card


def test_its_metadata_are_the_hubs() -> None:
    """As huggingface_hub reads them, and writes them again."""
    from huggingface_hub import ModelCard

    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    audits = {
        "sounds": {"kind": "zero_shot", "modality": "sound"}, "places": {"kind": "localisation"}
    }  # fmt: skip
    region = {"cIoU@0.5": 2.5, "AUC": 10.0}
    metrics = {"sounds": {"top1": 47.2}, "places": {"sound": {"half": region}}}
    results = replace(RESULTS, metrics=RESULTS.metrics | metrics, audits=RESULTS.audits | audits)
    card = model_card(FACTS, params, results)
    read = ModelCard(card)
    data = read.data
    assert (data.library_name, data.license, data.language) == ("trimodal", "mit", ["en"])
    assert (data.pipeline_tag, data.datasets) == ("feature-extraction", ["trimodal-demo"])
    assert "cross-modal-retrieval" in data.tags
    measured = {
        (found.task_name, found.dataset_name, found.metric_type): found.metric_value
        for found in data.eval_results
    }
    assert measured["text to video, image + audio", "msrvtt", "recall_at_10"] == 0.33
    assert measured["text to video, image alone", "msrvtt", "recall_at_10"] == 0.3
    assert measured["image to text", "msrvtt", "median_rank"] == 12.0
    assert measured["zero-shot classification", "sounds", "accuracy"] == 0.472
    assert measured["where it sounds in the picture", "places", "ciou_at_0.5"] == 0.025
    assert set(data.metrics) == {of for _, _, of in measured}
    assert len(measured) == 4 * 4 + 1 + 2
    again = ModelCard(str(read)).data
    assert again.to_dict() == data.to_dict()
    assert described_weights(card) == "w1"


def test_the_card_of_training_knows_no_results() -> None:
    from huggingface_hub import ModelCard

    data = ModelCard(card := card_of_weights(FACTS, language="german")).data
    assert (data.license, data.language, data.eval_results) == ("unknown", ["de"], None)
    assert "written by training, before any test" in card
    assert "put a licence into the metadata" in card
    assert "a to z" not in card
    assert ModelCard(card_of_weights(FACTS, language=None)).data.language is None


def test_datasets_are_those_whose_lists_were_read() -> None:
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    params["download"]["source"] = "youtube"
    params["captions"] |= {"coco_annotations": "karpathy", "flickr30k_annotations": "splits"}
    card = model_card(FACTS, params, WITHOUT_SETS)
    front_matter = yaml.safe_load(card.split("---")[1])
    assert front_matter["datasets"] == ["vggsound", "coco"]
    assert front_matter["license"] == "unknown"
    assert "model-index" not in front_matter


@pytest.mark.parametrize(
    ("card", "weights"),
    [
        ("---\nweights: abc\n---\n# Card", "abc"), ("---\nweights: '12'\n---\n", "12"),
        ("---\nweights: 12\n---\n", None), ("---\nweights: abc\n", None), ("", None),
        ("# Card\n---\nweights: abc\n---\n", None), ("---\n- a\n---\n", None),
        ("---\n{\n---\n", None),
    ],
)  # fmt: skip
def test_the_weights_that_a_card_is_of(card: str, weights: str | None) -> None:
    assert described_weights(card) == weights


def test_a_fingerprint_of_digits_stays_text() -> None:
    for weights in ("1234567890123456", "12345678901234e5", "0x12345678901234"):
        card = card_of_weights(FACTS | {"weights": weights}, language=None)
        assert described_weights(card) == weights
