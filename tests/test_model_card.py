"""The model card states the facts of the run whose metrics it is written with."""

import json
from pathlib import Path

import yaml
from model_fixtures import FACTS
from repository import ROOT

from trimodal.report.model_card import model_card


def summary(r1: float) -> dict[str, float]:
    return {"R@1": r1, "R@5": 2 * r1, "R@10": 3 * r1, "MedR": 12.0, "MeanR": 21.5}


RETRIEVAL = {
    "text_to_video": {"image": summary(10.0), "image_audio": summary(11.0)},
    "directions": {"text_to_image": summary(10.0), "image_to_text": summary(9.0)},
}
AUDIT = {
    "model": "w1", "protocol": "standard", "audio_weight": 0.2, "queries": 50, "gallery": 50,
    "gallery_without_audio": 3, "unknown_word_share": 0.0123, "videos_seen_in_training_kept": 0,
    "videos_seen_in_training_left_out": 0,
}  # fmt: skip


def test_it_states_data_training_metrics_and_limits() -> None:
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    card = model_card(FACTS, params, RETRIEVAL, AUDIT)
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
    card = model_card(FACTS, params, RETRIEVAL, AUDIT)
    assert "`folder/flickr`" in card
    assert "drawings" not in card


def test_folder_names_stay_code_and_add_no_lines() -> None:
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    params["download"]["source"] = "files"
    params["captions"] |= {"coco": "a`b<script>\n# c", "flickr30k": "x|y"}
    card = model_card(FACTS, params, RETRIEVAL, AUDIT)
    assert "- Captioned images: `` a`b<script> # c ``, `x|y` (" in card
    assert [line for line in card.splitlines() if line.startswith("# ")] == ["# Model card"]


def test_the_committed_card_is_of_the_committed_run() -> None:
    card = Path(ROOT / "metrics/report/model_card.md").read_text()
    audits = json.loads((ROOT / "metrics/audit.json").read_text())
    assert f"`{audits['msrvtt']['model']}`" in card
