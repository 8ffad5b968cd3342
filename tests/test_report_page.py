"""The HTML report: what it shows is what was measured, and it needs nothing else."""

import re
from html.parser import HTMLParser

import numpy as np
import pytest
from report_fixtures import AUDIO_WEIGHT, Evaluated

from trimodal.evaluation.retrieval import mix, ranks, similarity
from trimodal.report.html import report_page
from trimodal.report.test_set import Retrieved, examples, heard_by_weight, read_tested, space_map

TABLE = (
    "| method | training data | test set | R@1 |\n| --- | --- | --- | ---: |\n"
    "| theirs | <much> | MSR-VTT | 5.3 |\n| **ours** | this | demo | 14.0 |"
)
AUDIT = {
    "margin_mode": "fixed", "protocol": "standard", "audio_weight": AUDIO_WEIGHT, "epoch": 2,
    "queries": 12, "gallery": 6, "gallery_without_audio": 1,
}  # fmt: skip
SUMMARY = {"R@1": 1.0, "R@5": 2.0, "R@10": 33.3, "MedR": 4.0, "MeanR": 5.0}


@pytest.fixture(scope="module")
def tested(evaluated: Evaluated) -> Retrieved:
    return read_tested(evaluated.folder / "embeddings.parquet", evaluated.folder / "ranks.parquet")


@pytest.fixture(scope="module")
def page(tested: Retrieved, evaluated: Evaluated) -> str:
    retrieval = {
        "text_to_video": {"image": SUMMARY, "image_audio": SUMMARY},
        "directions": {"text_to_image": SUMMARY, "audio_to_text": SUMMARY | {"R@10": 44.4}},
        "demo": {"oracle": {name: SUMMARY | {"R@1": 62.4} for name in ("image", "audio", "both")}},
    }
    curve = [{"audio_weight": w, "R@10": 50.0} for w in (0.0, 0.5, 1.0)]
    losses = {"train": [0.5, 0.4], "val": [0.6, 0.5]}
    return report_page(TABLE, retrieval, AUDIT, curve, losses, tested, evaluated.av_dir)


def test_rows_of_both_files_are_matched_by_query(tested: Retrieved, evaluated: Evaluated) -> None:
    e = evaluated.embeddings
    scores = mix(
        similarity(tested.text, tested.image), similarity(tested.text, tested.audio), AUDIO_WEIGHT,
        tested.has_audio,
    )  # fmt: skip
    np.testing.assert_array_equal(ranks(scores, tested.truth), tested.ranks["image_audio"])
    names = [query.sentence for query in e.queries]
    for row, sentence in enumerate(tested.sentences):
        np.testing.assert_array_equal(tested.text[row], e.text[names.index(sentence)])
    assert len(tested.videos) == 6
    assert tested.has_audio.sum() == 5


def test_the_curve_of_videos_with_sound_is_theirs_alone(tested: Retrieved) -> None:
    """By hand: five videos, their ten sentences."""
    kept = np.flatnonzero(tested.has_audio)
    queries = [q for q in range(12) if tested.has_audio[tested.truth[q]]]
    hits = []
    for q in queries:
        scores = [0.5 * float(tested.text[q] @ tested.image[v])
                  + 0.5 * float(tested.text[q] @ tested.audio[v]) for v in kept]  # fmt: skip
        own = scores[list(kept).index(tested.truth[q])]
        hits.append(sum(score > own for score in scores) < 1)
    assert heard_by_weight(tested, [0.5], "R@1") == [pytest.approx(100 * np.mean(hits))]


def test_the_map_has_a_place_for_every_point_and_is_the_same_twice(tested: Retrieved) -> None:
    first, second = space_map(tested), space_map(tested)
    assert {name: len(rows) for name, rows in first.items()} == {"image": 6, "audio": 5, "text": 12}
    for name, rows in first.items():
        np.testing.assert_array_equal(rows, second[name])


def test_examples_are_the_best_and_the_worst(tested: Retrieved, evaluated: Evaluated) -> None:
    shown = examples(tested, evaluated.av_dir, AUDIO_WEIGHT, 3)
    in_order = np.sort(tested.ranks["image_audio"])
    assert [one.rank for one in shown] == [*in_order[:3], *in_order[-3:]]
    assert all((one.wanted == one.found) == (one.rank == 1) for one in shown)
    assert len(examples(tested, evaluated.av_dir, AUDIO_WEIGHT, 50)) == 12


class Reader(HTMLParser):
    """Collects tags, text and every address that a page names."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.addresses: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in ("meta", "img", "br"):
            self.open.append(tag)
        self.addresses += [v or "" for k, v in attrs if k in ("src", "href", "xlink:href")]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_page_is_whole_and_needs_nothing_else(page: str) -> None:
    reader = Reader()
    reader.feed(page)
    assert reader.open == []
    assert reader.addresses
    assert all(address.startswith(("data:image/jpeg;base64,", "#")) for address in reader.addresses)
    assert page.count("<svg") == 5
    assert "url(http" not in page


def test_ids_of_the_drawings_do_not_meet(page: str) -> None:
    ids = re.findall(r' id="(m[0-9a-f]+|p[0-9a-f]+|C0_[^"]*)"', page)
    assert len(ids) == len(set(ids))


def test_what_strangers_wrote_is_text(page: str) -> None:
    assert "&lt;b&gt;0&lt;/b&gt; dogs" in page
    assert "<b>" not in page
    assert "&lt;much&gt;" in page


def test_tables_have_the_figures(page: str) -> None:
    assert '<tr class=ours><td class="words">ours</td>' in page
    assert ">33.3</td>" in page
    assert ">44.4</td>" in page
    assert ">62.4</td>" in page
