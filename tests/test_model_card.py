"""The model card states the facts of the run whose metrics it is written with."""

import json
from pathlib import Path

import yaml
from model_fixtures import FACTS
from repository import ROOT

from trimodal.report.model_card import model_card


def read(name: str) -> dict:
    return json.loads((ROOT / "metrics" / name).read_text())


def test_it_states_data_training_metrics_and_limits() -> None:
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    retrieval, audit = read("retrieval.json"), read("audit.json")
    card = model_card(FACTS, params, retrieval, audit)
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
    summary = retrieval["text_to_video"]["image_audio"]
    row = next(line for line in card.splitlines() if "video, image + audio" in line)
    assert f"| {summary['R@10']:.1f} | {summary['MedR']:.1f} |" in row
    assert f"{audit['unknown_word_share']:.1%}" in card


def test_for_real_data_it_mentions_no_drawings() -> None:
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    params["download"]["source"] = "files"
    params["captions"] |= {"coco": "", "flickr30k": "folder/flickr"}
    card = model_card(FACTS, params, read("retrieval.json"), read("audit.json"))
    assert "`folder/flickr`" in card
    assert "drawings" not in card


def test_folder_names_stay_code_and_add_no_lines() -> None:
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    params["download"]["source"] = "files"
    params["captions"] |= {"coco": "a`b<script>\n# c", "flickr30k": "x|y"}
    card = model_card(FACTS, params, read("retrieval.json"), read("audit.json"))
    assert "- Captioned images: `` a`b<script> # c ``, `x|y` (" in card
    assert [line for line in card.splitlines() if line.startswith("# ")] == ["# Model card"]


def test_the_committed_card_is_of_the_committed_run() -> None:
    card = Path(ROOT / "metrics/report/model_card.md").read_text()
    assert f"`{read('audit.json')['model']}`" in card
