"""The HTML report shows what was measured and is self-contained."""

import base64
import re
from collections import defaultdict
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from jinja2 import UndefinedError
from markupsafe import escape
from media_fixtures import TONES_HZ, samples_of, write_steps
from report_fixtures import AUDIO_WEIGHT, Evaluated

from trimodal.core.manifest import read_manifest, write_manifest
from trimodal.evaluation.retrieval import mix, ranks, similarity
from trimodal.report.comparison_table import comparison_view
from trimodal.report.evaluated import (
    EvaluatedTestSet,
    metric_by_audio_weight,
    read_test_set,
    space_map,
)
from trimodal.report.examples import (
    Example,
    ExampleGroup,
    choose,
    example_groups,
    rivals_of,
    unreadable_sounds,
)
from trimodal.report.html import report_page
from trimodal.report.results import Results
from trimodal.report.shown_videos import ShownVideo, show

AUDIT = {
    "kind": "text_video", "margin_mode": "<much>", "protocol": "standard",
    "audio_weight": AUDIO_WEIGHT, "epoch": 2,
    "queries": 12, "gallery": 6, "gallery_without_audio": 1, "data": "a",
}  # fmt: skip
SUMMARY = {"R@1": 1.0, "R@5": 2.0, "R@10": 33.3, "MedR": 4.0, "MeanR": 5.0}


HOSTILE = ("<script>alert(1)</script>", "a | b", "{{ 7 * 7 }}\n\"quoted\" & 'so'")


@pytest.fixture(scope="module")
def evaluated_set(evaluated: Evaluated) -> EvaluatedTestSet:
    return read_test_set(evaluated.folder)


def groups_of(test_set: EvaluatedTestSet, evaluated: Evaluated) -> list[ExampleGroup]:
    return example_groups(test_set, AUDIO_WEIGHT, evaluated.av_dir, evaluated.manifest, 3.0)


def page_of(
    test_set: EvaluatedTestSet,
    evaluated: Evaluated,
    audit: dict[str, Any] = AUDIT,
    comparison: dict[str, Any] | None = None,
) -> str:
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
        comparison=comparison or {"git": "", "runs": []},
    )
    return report_page(
        results, test_set, {"seed": "<7>"}, "git log", groups_of(test_set, evaluated)
    )


@pytest.fixture(scope="module")
def page(evaluated_set: EvaluatedTestSet, evaluated: Evaluated) -> str:
    return page_of(evaluated_set, evaluated)


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


def by_hand(test_set: EvaluatedTestSet, query: int) -> list[float]:
    """A query's score of every video."""
    scores = []
    for video, has_audio in enumerate(test_set.has_audio):
        image = float(test_set.text[query] @ test_set.image[video])
        audio = float(test_set.text[query] @ test_set.audio[video])
        mixed = (1 - AUDIO_WEIGHT) * image + AUDIO_WEIGHT * audio
        scores.append(mixed if has_audio else image)
    return scores


def test_examples_are_of_the_kind_that_they_are_said_to_be(
    evaluated_set: EvaluatedTestSet, evaluated: Evaluated
) -> None:
    groups = {group.title: group.examples for group in groups_of(evaluated_set, evaluated)}
    both, image = (evaluated_set.ranks[name] for name in ("image_audio", "image"))
    scores = [by_hand(evaluated_set, query) for query in range(12)]
    truth = evaluated_set.truth.tolist()
    names = evaluated_set.sentences
    leads = {
        query: row[truth[query]] - max(s for v, s in enumerate(row) if v != truth[query])
        for query, row in enumerate(scores)
    }
    best = sorted((query for query in leads if leads[query] > 0), key=lambda q: -leads[q])
    assert [one.sentence for one in groups["Best"]] == [names[query] for query in best[:3]]
    assert all(one.rival is None and one.rank == 1 for one in groups["Best"])
    assert [one.rank for one in groups["Worst"]] == sorted(both, reverse=True)[:3]
    for one in groups["Worst"]:
        query = names.index(one.sentence)
        assert one.true.name == evaluated_set.videos[truth[query]]
        assert one.rival is not None
        assert one.rival.name == evaluated_set.videos[int(np.argmax(scores[query]))]
        assert (one.rank, one.rank_image) == (both[query], image[query])
    with_audio = [query for query in range(12) if evaluated_set.has_audio[truth[query]]]
    helped = max(image[query] / both[query] for query in with_audio)
    first = groups["Helped most by sound"][0]
    assert first.rank_image / first.rank == helped > 1
    first = groups["Misled most by sound"][0]
    assert first.rank / first.rank_image == max(both[q] / image[q] for q in with_audio) > 1
    silent = evaluated_set.videos[int(np.argmin(evaluated_set.has_audio))]
    for title in ("Helped most by sound", "Misled most by sound"):
        assert silent not in [one.true.name for one in groups[title]]


def test_videos_that_are_taken_for_each_other_are_found_once(
    evaluated_set: EvaluatedTestSet,
) -> None:
    """Two sentences a video: a third comes first for 0 and 1, which come first for each other."""
    truth = np.array([0, 0, 1, 1, 2, 2])
    rivals, gaps = np.array([1, 2, 0, 0, 1, 0]), np.array([-0.3, -0.9, -0.1, -0.2, -0.5, 0.4])
    ranks_of = {name: np.ones(6) for name in ("image", "image_audio")}
    test_set = replace(evaluated_set, truth=truth, ranks=ranks_of)
    choices = {choice.title: choice for choice in choose(test_set, rivals, gaps)}
    assert choices["Confused with each other"].queries.tolist() == [0]
    assert choices["Helped most by sound"].queries.tolist() == []


def test_a_silent_video_is_neither_helped_nor_misled_by_sound(
    evaluated_set: EvaluatedTestSet,
) -> None:
    """Videos 0 and 1 have audio, 5 has none; its ranks differ most."""
    low, high = np.array([1.0, 2.0, 1.0]), np.array([4.0, 4.0, 9.0])
    rivals, gaps = np.zeros(3, np.int64), np.zeros(3)
    for title, image, both in (("Helped", high, low), ("Misled", low, high)):
        ranks_of = {"image": image, "image_audio": both}
        test_set = replace(
            evaluated_set, truth=np.array([0, 1, 5]), ranks=ranks_of, has_audio=np.arange(6) < 5
        )
        choices = {choice.title: choice for choice in choose(test_set, rivals, gaps)}
        assert choices[f"{title} most by sound"].queries.tolist() == [0, 1]


def test_rivals_are_the_best_other_videos(evaluated_set: EvaluatedTestSet) -> None:
    rivals, gaps = rivals_of(evaluated_set, AUDIO_WEIGHT)
    for query, (rival, gap) in enumerate(zip(rivals, gaps, strict=True)):
        scores, true = by_hand(evaluated_set, query), evaluated_set.truth[query]
        others = [-np.inf if video == true else score for video, score in enumerate(scores)]
        assert rival == np.argmax(others)
        assert gap == pytest.approx(scores[true] - max(others), abs=1e-6)


def test_the_sound_of_a_shown_video_is_the_window_around_its_frame(
    evaluated: Evaluated, tmp_path: Path
) -> None:
    """Of a file with another tone each second; one that is gone is named."""
    steps = write_steps(tmp_path / "steps.mp4", seconds=10)
    index = pq.read_table(evaluated.av_dir / "index.parquet").to_pylist()
    row = next(row for row in index if row["mel_columns"])
    name, middle = row["clip_id"], len(row["frame_offsets"]) // 2

    def shown(path: Path, seconds: float) -> ShownVideo:
        clips = [replace(clip, path=str(path)) for clip in read_manifest(evaluated.manifest)]
        write_manifest(tmp_path / "manifest.parquet", clips)
        return show([name], evaluated.av_dir, tmp_path / "manifest.parquet", seconds)[name]

    (tmp_path / "shown.mp4").write_bytes(base64.b64decode(shown(steps, 2.0).sound))
    heard = samples_of(tmp_path / "shown.mp4", 16_000)
    assert len(heard) == pytest.approx(32_000, abs=2_048)
    for second, part in ((middle - 1, 0.25), (middle, 1.0), (middle + 1, 1.75)):
        piece = heard[int(part * 16_000) - 1_600 :][:3_200]  # 0.2 s
        assert 5 * np.abs(np.fft.rfft(piece)).argmax() == pytest.approx(TONES_HZ[second], abs=10)
    assert len(base64.b64decode(shown(steps, 60.0).sound)) < 25_000
    gone = shown(tmp_path / "gone.mp4", 2.0)
    assert (gone.sound, gone.problem) == ("", "missing")
    example = Example(sentence="", rank=1, rank_image=1, true=gone, rival=gone)
    group = ExampleGroup(title="", text="", examples=[example])
    assert unreadable_sounds([group, group]) == {"sound missing": 1}


class Reader(HTMLParser):
    """Collects tags, text and every address that a page names."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.texts: list[str] = []
        self.addresses: list[str] = []
        self.named: defaultdict[str, list[dict[str, str | None]]] = defaultdict(list)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag not in ("meta", "img", "br"):
            self.open.append(tag)
        self.named[tag].append(dict(attrs))
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
    assert all(
        address.startswith(("data:image/jpeg;base64,", "data:audio/mp4;base64,", "#"))
        for address in reader.addresses
    )
    assert page.count("<svg") == 5
    assert "url(http" not in page


def test_pictures_plots_sounds_and_tables_have_names(page: str) -> None:
    reader = Reader()
    reader.feed(page)
    for tag, name in (("img", "alt"), ("svg", "aria-label"), ("audio", "aria-label")):
        assert reader.named[tag], tag
        assert all(attributes.get(name) for attributes in reader.named[tag]), tag
    regions = [a for a in reader.named["div"] if a.get("role") == "region"]
    assert len(regions) == page.count("<table>")
    assert all(attributes["aria-label"] for attributes in regions)
    assert all(attributes.get("scope") for attributes in reader.named["th"])


def test_the_result_comes_first_then_the_run(page: str) -> None:
    texts = [
        "12 sentences, 33.3\u00a0% find their video among the first 10 of 6",
        "&lt;7&gt;",
        "Best",
    ]
    places = [page.index(text) for text in texts]
    assert places == sorted(places)
    assert page.index(texts[0]) < page.index("<table>")


def test_a_comparison_of_margins_on_this_data_is_shown(
    evaluated_set: EvaluatedTestSet,
    evaluated: Evaluated,
    page: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert "<code>make table</code> does it" in page
    monkeypatch.setattr("trimodal.report.html._plots", lambda *_: [])
    runs = [
        {"variant": variant, "seed": seed, "score": "image", **SUMMARY, "R@1": seed + 10.0 * wide}
        for wide, variant in enumerate(("fixed", "variable")) for seed in (1, 2)
    ]  # fmt: skip
    tests = {
        over: {"mean": 10.0, "low": 9.0, "high": 11.0, "p": 0.01}
        for over in ("over_queries", "over_seeds")
    }
    comparison = {
        "git": "0123456789abcdef", "data": "d", "title": "margins", "seeds": [1, 2], "runs": runs,
        "queries": {"image": 12}, "scores": {"image": "image alone"}, "false_alarms": {},
        "variants": {name: {"name": f"{name} margin"} for name in ("fixed", "variable")},
        "differences": [
            {"first": ["fixed", "image"], "second": ["variable", "image"], "tests": {"R@1": tests}}
        ],
    }  # fmt: skip
    audit = AUDIT | {"data": "d"}
    shown = page_of(evaluated_set, evaluated, audit, comparison)
    assert "at commit 0123456789abcdef" in shown
    view = comparison_view(comparison)
    for table in (view.means, view.differences):
        for cell in table.rows[0]:
            assert f">{escape(cell)}</t" in shown
    assert "0123456789abcdef" not in page_of(
        evaluated_set, evaluated, audit, comparison | {"data": "other"}
    )


def test_ids_of_the_plots_are_unique(page: str) -> None:
    ids = re.findall(r' id="(m[0-9a-f]+|p[0-9a-f]+|C0_[^"]*)"', page)
    assert len(ids) > 5
    assert len(ids) == len(set(ids))


def test_sentences_and_names_are_escaped(page: str) -> None:
    assert re.search(r"<q>&lt;b&gt;\d+&lt;/b&gt; dogs</q>", page)
    assert "<b>" not in page
    assert "ours: &lt;much&gt; margin, image alone" in page
    assert "<much>" not in page


def test_hostile_sentences_and_names_change_no_element(
    page: str, evaluated_set: EvaluatedTestSet, evaluated: Evaluated
) -> None:
    sentences = [HOSTILE[number % 3] for number in range(len(evaluated_set.sentences))]
    audit = AUDIT | {"margin_mode": HOSTILE[0]}
    hostile = page_of(replace(evaluated_set, sentences=sentences), evaluated, audit)
    before, after = Reader(), Reader()
    before.feed(page)
    after.feed(hostile)
    assert after.tags == before.tags
    texts = {text.strip() for text in after.texts}
    assert {*HOSTILE, f"ours: {HOSTILE[0]} margin, image alone"} <= texts


def test_a_missing_value_is_an_error(
    evaluated_set: EvaluatedTestSet, evaluated: Evaluated, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trimodal.report.html._plots", lambda *_: [])
    without = {name: value for name, value in AUDIT.items() if name != "protocol"}
    with pytest.raises(UndefinedError, match="protocol"):
        page_of(evaluated_set, evaluated, without)


def test_tables_have_the_figures(page: str) -> None:
    assert len(re.findall('<tr class="ours">\\s*<th scope="row" class="text">ours: ', page)) == 2
    page = re.sub(r">\s+<", "><", page)
    assert '<td class="text">demo world, 6</td><td>1.0</td><td>2.0</td><td>33.3</td>' in page
    assert ">44.4</td>" in page
    assert ">62.4</td>" in page
