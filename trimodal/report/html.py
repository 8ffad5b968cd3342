"""The report as one HTML page that needs nothing else, in light and dark."""

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from trimodal.report.figures import (
    inline_svg,
    loss_curves,
    rank_histogram,
    recall_curves,
    space,
    weight_curves,
)
from trimodal.report.test_set import Example, Retrieved, examples, heard_by_weight, space_map

Metrics = Mapping[str, Any]
_COLUMNS = ("R@1", "R@5", "R@10", "MedR", "MeanR")
_EXAMPLES = 10
_STYLE = """
:root { color-scheme: light dark; --page: #fbfaf8; --sheet: #fff; --ink: #24292f; --quiet: #57606a;
  --line: #d8dee4; --heat: 59 130 246; }
@media (prefers-color-scheme: dark) { :root { --page: #14171a; --sheet: #1d2125; --ink: #e6e9ec;
  --quiet: #a3adb8; --line: #363d44; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 72rem; padding: 1.5rem clamp(1rem, 4vw, 2.5rem) 4rem;
  background: var(--page); color: var(--ink); font: 1rem/1.5 system-ui, sans-serif; }
h1 { font-size: 1.6rem; margin: 0 0 .25rem; } h2 { font-size: 1.15rem; margin: 2.5rem 0 .5rem; }
p { margin: .25rem 0 .75rem; color: var(--quiet); max-width: 50rem; }
.figures { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 27rem), 1fr));
  gap: 1rem; }
figure { margin: 0; padding: .75rem; background: var(--sheet); border: 1px solid var(--line);
  border-radius: .6rem; }
figure svg { width: 100%; height: auto; font-family: system-ui, sans-serif; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: .92rem; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .7rem; border-bottom: 1px solid var(--line); text-align: right; }
th:first-child, td:first-child, .words { text-align: left; }
th { font-weight: 600; } tr.ours td { font-weight: 600; }
.cell { text-align: center; }
.examples { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 17rem), 1fr));
  gap: 1rem; list-style: none; margin: 0; padding: 0; }
.examples li { padding: .75rem; background: var(--sheet); border: 1px solid var(--line);
  border-radius: .6rem; font-size: .9rem; }
.pair { display: flex; gap: .5rem; margin-top: .5rem; } .pair div { flex: 1; min-width: 0; }
.pair img { width: 100%; aspect-ratio: 1; border-radius: .3rem; display: block; }
.pair small { color: var(--quiet); overflow-wrap: anywhere; }
"""


def report_page(
    main_table: str,
    retrieval: Metrics,
    audit: Metrics,
    curve: Sequence[Mapping[str, float]],
    losses: Mapping[str, Sequence[float]],
    tested: Retrieved,
    av_dir: Path,
) -> str:
    """HTML from what ``train`` and ``evaluate`` left; ``main_table`` is Markdown."""
    weights = [row["audio_weight"] for row in curve]
    by_weight = {"all videos": [row["R@10"] for row in curve]}
    if tested.has_audio.sum() >= 2:
        by_weight["videos that have sound"] = heard_by_weight(tested, weights, "R@10")
    named = {
        "image alone": tested.ranks["image"], "image + audio": tested.ranks["image_audio"],
    }  # fmt: skip
    gallery, used = len(tested.videos), audit["audio_weight"]
    drawn = [
        inline_svg(lambda: recall_curves(named, gallery), "recall"),
        inline_svg(lambda: rank_histogram(named, gallery), "ranks"),
        inline_svg(lambda: weight_curves(weights, by_weight, used), "weight"),
        inline_svg(lambda: loss_curves(losses, audit["epoch"]), "loss"),
        inline_svg(lambda: space(space_map(tested)), "space"),
    ]
    shown = examples(tested, av_dir, used, _EXAMPLES)
    best = shown[: (len(shown) + 1) // 2]
    body = [
        "<h1>Text to video retrieval</h1>",
        f"<p>Margin {escape(audit['margin_mode'])}, protocol {escape(audit['protocol'])}, "
        f"{audit['queries']} sentences, {audit['gallery']} videos, "
        f"{audit['gallery_without_audio']} of them without sound. Epoch {audit['epoch']} was "
        "kept.</p>",
        "<h2>The paper's table, with our rows</h2>",
        "<p>Rows on different test sets cannot be compared.</p>",
        _from_markdown(main_table),
        "<h2>How well</h2>",
        '<div class="figures">' + "".join(f"<figure>{svg}</figure>" for svg in drawn) + "</div>",
        "<p>The audio weight is not chosen here: a weight that is best on the test set would be "
        "fitted to it. In the map, near points are alike; distances between groups mean "
        "little.</p>",
        "<h2>All six directions</h2>",
        "<p>R@10 from row to column, in percent; directions with sound are among the videos that "
        "have some.</p>",
        _matrix(retrieval["directions"]),
        *_oracle(retrieval),
        "<h2>Found best</h2>",
        _example_list(best),
        "<h2>Found worst</h2>",
        _example_list(shown[len(best) :][::-1]),
    ]
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>Text to video retrieval</title><style>{_STYLE}</style></head>\n<body>\n"
        + "\n".join(body)
        + "\n</body></html>\n"
    )


def _from_markdown(table: str) -> str:
    head, _, *rows = ([cell.strip() for cell in line.strip("|").split("|")]
                      for line in table.strip().splitlines())  # fmt: skip
    words = 1 + head.index("test set")
    return _table(head, rows, words)


def _table(head: Sequence[str], rows: Iterable[Sequence[str]], words: int = 1) -> str:
    """The first ``words`` columns hold words, the others numbers."""

    def line(cells: Sequence[str], tag: str) -> str:
        return "".join(
            f'<{tag} class="words">{escape(cell.strip("*"))}</{tag}>' if place < words
            else f"<{tag}>{escape(cell)}</{tag}>"
            for place, cell in enumerate(cells)
        )  # fmt: skip

    lines = [
        f"<tr{' class=ours' if row[0].startswith('**') else ''}>{line(row, 'td')}</tr>"
        for row in rows
    ]
    return (
        f'<div class="scroll"><table><thead><tr>{line(head, "th")}</tr></thead>'
        f"<tbody>{''.join(lines)}</tbody></table></div>"
    )


def _matrix(directions: Metrics) -> str:
    names = ("text", "image", "audio")
    rows = []
    for of in names:
        cells = []
        for to in names:
            found = directions.get(f"{of}_to_{to}")
            share = found["R@10"] if found else 0.0
            told = f"{share:.1f}" if found else ""
            heat = f"background: rgb(var(--heat) / {share / 200:.2f})"
            cells.append(f'<td class="cell" style="{heat}">{told}</td>')
        rows.append(f"<tr><th>{of}</th>{''.join(cells)}</tr>")
    head = "".join(f'<th class="cell">{name}</th>' for name in names)
    return f'<div class="scroll"><table><tr><th></th>{head}</tr>{"".join(rows)}</table></div>'


def _oracle(retrieval: Metrics) -> list[str]:
    """The demo's perfect observers beside the model."""
    if "demo" not in retrieval:
        return []
    observers = retrieval["demo"]["oracle"]
    found = {
        "sees everything": observers["image"], "model, image alone":
        retrieval["text_to_video"]["image"], "sees and hears everything": observers["both"],
        "model, image + audio": retrieval["text_to_video"]["image_audio"],
    }  # fmt: skip
    rows = [(name, *(f"{of[key]:.1f}" for key in _COLUMNS)) for name, of in found.items()]
    return [
        "<h2>Beside a perfect observer</h2>",
        "<p>The demo's world knows what is in every video. An observer who saw (and heard) all of "
        "it would find no more than this: some sentences fit several videos.</p>",
        _table(("who", *_COLUMNS), rows),
    ]


def _example_list(shown: Sequence[Example]) -> str:
    items = []
    for one in shown:
        pictures = (("wanted", one.wanted, one.wanted_picture), ("found first", one.found,
                    one.found_picture))  # fmt: skip
        pair = "".join(
            f'<div><img alt="" src="data:image/jpeg;base64,{picture}">'
            f"<small>{told}: {escape(name)}</small></div>"
            for told, name, picture in pictures
        )
        items.append(
            f"<li>{escape(one.sentence)}<br><small>rank {one.rank:g}</small>"
            f'<div class="pair">{pair}</div></li>'
        )
    return f'<ul class="examples">{"".join(items)}</ul>'
