"""The model card states the facts of the run whose metrics it is written with."""

import json
from dataclasses import replace
from pathlib import Path

import yaml
from model_fixtures import FACTS, Tool
from repository import ROOT

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
    row = next(line for line in card.splitlines() if "video, image + audio" in line)
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
    params["captions"] |= {"coco": "", "flickr30k": ""}
    network = {
        "text_network": "open_clip:ViT-B-32/x", "text_weights": "pretrained",
        "audio_backbone": "timm:tiny", "embedding_dim": 512, "freeze": ["image", "text"],
    }  # fmt: skip
    facts = FACTS | {"model": FACTS["model"] | network}
    card = model_card(facts, params, WITHOUT_SETS)
    for fact in (
        "unit vectors of 512 numbers",
        "Video: videos from a folder",
        "Captioned images: none (",
        "Audio: timm:tiny",
        "Sentences: open_clip:ViT-B-32/x, initial weights: pretrained.",
        "only their heads learned: image, text.",
        "It was tested on nothing: there is no test set.",
    ):
        assert fact in card
    assert "vector, of their own" not in card
    assert "Chance" not in card
    audits = {"esc": {"kind": "zero_shot"}}
    tested = replace(WITHOUT_SETS, metrics={"esc": {}}, audits=audits)
    assert "no text-to-video test set; report.md has" in model_card(facts, params, tested)


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
