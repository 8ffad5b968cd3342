"""The HTML report shows what was measured and is self-contained."""

import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from jinja2 import UndefinedError
from report_fixtures import AUDIO_WEIGHT, Evaluated

from trimodal.evaluation.retrieval import mix, ranks, similarity
from trimodal.report.evaluated import (
    EvaluatedTestSet,
    examples,
    metric_by_audio_weight,
    read_test_set,
    space_map,
)
from trimodal.report.html import report_page
from trimodal.report.results import Results

AUDIT = {
    "kind": "text_video", "margin_mode": "<much>", "protocol": "standard",
    "audio_weight": AUDIO_WEIGHT, "epoch": 2,
    "queries": 12, "gallery": 6, "gallery_without_audio": 1,
}  # fmt: skip
SUMMARY = {"R@1": 1.0, "R@5": 2.0, "R@10": 33.3, "MedR": 4.0, "MeanR": 5.0}


HOSTILE = ("<script>alert(1)</script>", "a | b", "{{ 7 * 7 }}\n\"quoted\" & 'so'")


@pytest.fixture(scope="module")
def evaluated_set(evaluated: Evaluated) -> EvaluatedTestSet:
    return read_test_set(evaluated.folder)


def page_of(test_set: EvaluatedTestSet, av_dir: Path, audit: dict[str, Any] = AUDIT) -> str:
    retrieval = {
        "text_to_video": {"image": SUMMARY, "image_audio": SUMMARY},
        "directions": {"text_to_image": SUMMARY, "audio_to_text": SUMMARY | {"R@10": 44.4}},
        "demo": {"oracle": {name: SUMMARY | {"R@1": 62.4} for name in ("image", "audio", "both")}},
    }
    results = Results(
        main="msrvtt",
        metrics={"msrvtt": retrieval},
        audits={"msrvtt": audit},
        epoch=2,
        audio_weight_curve=[{"audio_weight": w, "R@10": 50.0} for w in (0.0, 0.5, 1.0)],
        losses={"train": [0.5, 0.4], "val": [0.6, 0.5]},
        comparison={},
    )
    return report_page(results, test_set, av_dir)


@pytest.fixture(scope="module")
def page(evaluated_set: EvaluatedTestSet, evaluated: Evaluated) -> str:
    return page_of(evaluated_set, evaluated.av_dir)


def test_rows_of_both_files_are_matched_by_query(
    evaluated_set: EvaluatedTestSet, evaluated: Evaluated
) -> None:
    e = evaluated.embeddings
    scores = mix(
        similarity(evaluated_set.text, evaluated_set.image),
        similarity(evaluated_set.text, evaluated_set.audio),
        AUDIO_WEIGHT,
        evaluated_set.has_audio,
    )
    np.testing.assert_array_equal(
        ranks(scores, evaluated_set.truth), evaluated_set.ranks["image_audio"]
    )
    names = [query.sentence for query in e.queries]
    for row, sentence in enumerate(evaluated_set.sentences):
        np.testing.assert_array_equal(evaluated_set.text[row], e.text[names.index(sentence)])
    assert len(evaluated_set.videos) == 6
    assert evaluated_set.has_audio.sum() == 5


def test_the_curve_of_videos_with_audio_uses_no_others(evaluated_set: EvaluatedTestSet) -> None:
    """By hand: five videos, their ten sentences."""
    with_audio = np.flatnonzero(evaluated_set.has_audio)
    queries = [q for q in range(12) if evaluated_set.has_audio[evaluated_set.truth[q]]]
    hits = []
    for q in queries:
        text = evaluated_set.text[q]
        scores = [
            0.5 * float(text @ evaluated_set.image[v]) + 0.5 * float(text @ evaluated_set.audio[v])
            for v in with_audio
        ]
        own = scores[list(with_audio).index(evaluated_set.truth[q])]
        hits.append(sum(score > own for score in scores) < 1)
    assert metric_by_audio_weight(evaluated_set, [0.5], "R@1") == [
        pytest.approx(100 * np.mean(hits))
    ]


def test_the_map_has_every_embedding_and_is_the_same_twice(evaluated_set: EvaluatedTestSet) -> None:
    first, second = space_map(evaluated_set), space_map(evaluated_set)
    assert {name: len(rows) for name, rows in first.items()} == {"image": 6, "audio": 5, "text": 12}
    for name, rows in first.items():
        np.testing.assert_array_equal(rows, second[name])


def test_examples_are_the_best_and_the_worst(
    evaluated_set: EvaluatedTestSet, evaluated: Evaluated
) -> None:
    shown = examples(evaluated_set, evaluated.av_dir, AUDIO_WEIGHT, 3)
    in_order = np.sort(evaluated_set.ranks["image_audio"])
    assert [one.rank for one in shown] == [*in_order[:3], *in_order[-3:]]
    assert all((one.true_video == one.top_video) == (one.rank == 1) for one in shown)
    assert len(examples(evaluated_set, evaluated.av_dir, AUDIO_WEIGHT, 50)) == 12


class Reader(HTMLParser):
    """Collects tags, text and every address that a page names."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.texts: list[str] = []
        self.addresses: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag not in ("meta", "img", "br"):
            self.open.append(tag)
        self.addresses += [v or "" for k, v in attrs if k in ("src", "href", "xlink:href")]

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_page_is_well_formed_and_self_contained(page: str) -> None:
    reader = Reader()
    reader.feed(page)
    assert reader.open == []
    assert reader.addresses
    assert all(address.startswith(("data:image/jpeg;base64,", "#")) for address in reader.addresses)
    assert page.count("<svg") == 5
    assert "url(http" not in page


def test_ids_of_the_plots_are_unique(page: str) -> None:
    ids = re.findall(r' id="(m[0-9a-f]+|p[0-9a-f]+|C0_[^"]*)"', page)
    assert len(ids) > 5
    assert len(ids) == len(set(ids))


def test_sentences_and_names_are_escaped(page: str) -> None:
    assert "&lt;b&gt;0&lt;/b&gt; dogs" in page
    assert "<b>" not in page
    assert "ours: &lt;much&gt; margin, image alone" in page
    assert "<much>" not in page


def test_hostile_sentences_and_names_change_no_element(
    page: str, evaluated_set: EvaluatedTestSet, evaluated: Evaluated
) -> None:
    sentences = [HOSTILE[number % 3] for number in range(len(evaluated_set.sentences))]
    audit = AUDIT | {"margin_mode": HOSTILE[0]}
    hostile = page_of(replace(evaluated_set, sentences=sentences), evaluated.av_dir, audit)
    before, after = Reader(), Reader()
    before.feed(page)
    after.feed(hostile)
    assert after.tags == before.tags
    texts = {text.strip() for text in after.texts}
    assert {*HOSTILE, f"ours: {HOSTILE[0]} margin, image alone"} <= texts


def test_a_missing_value_is_an_error(evaluated_set: EvaluatedTestSet, evaluated: Evaluated) -> None:
    without = {name: value for name, value in AUDIT.items() if name != "protocol"}
    with pytest.raises(UndefinedError, match="protocol"):
        page_of(evaluated_set, evaluated.av_dir, without)


def test_tables_have_the_figures(page: str) -> None:
    assert page.count('<tr class="ours"><td class="text">ours: ') == 2
    assert '<td class="text">demo world, 6</td><td>1.0</td><td>2.0</td><td>33.3</td>' in page
    assert ">44.4</td>" in page
    assert ">62.4</td>" in page
