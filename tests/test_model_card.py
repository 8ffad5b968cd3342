"""The model card tells what the run has: it stands beside the metrics of that run."""

import json
from pathlib import Path

import yaml
from model_fixtures import FACTS
from repository import ROOT

from trimodal.report.model_card import model_card


def read(name: str) -> dict:
    return json.loads((ROOT / "metrics" / name).read_text())


def test_it_tells_data_training_metrics_and_limits() -> None:
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    retrieval, audit = read("retrieval.json"), read("audit.json")
    card = model_card(FACTS, params, retrieval, audit)
    for told in (
        "`a1`",
        "`t1`",
        "`v1`",
        "`w1`",
        "margin_mode variable",
        "epoch 7 was kept",
        "weights before training: imagenet",
        "drawings alone",
        "a convolutional network of 16 words, their vectors frozen",
        "10% of the training",
    ):
        assert told in card
    summary = retrieval["text_to_video"]["image_audio"]
    row = next(line for line in card.splitlines() if "video, image + audio" in line)
    assert f"| {summary['R@10']:.1f} | {summary['MedR']:.1f} |" in row
    assert f"{audit['unknown_word_share']:.1%}" in card


def test_of_real_data_it_does_not_say_that_it_is_drawn() -> None:
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    params["download"]["source"] = "files"
    params["captions"] |= {"coco": "", "flickr30k": "folder/flickr"}
    card = model_card(FACTS, params, read("retrieval.json"), read("audit.json"))
    assert "`folder/flickr`" in card
    assert "drawings" not in card


def test_the_committed_card_is_of_the_committed_run() -> None:
    card = Path(ROOT / "metrics/report/model_card.md").read_text()
    assert f"`{read('audit.json')['model']}`" in card
