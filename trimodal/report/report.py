"""Stage ``report``: the paper's table with our rows, the model card and the plots beside them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

from trimodal.core.config import read_yaml
from trimodal.core.files import atomic_path, read_json, write_text
from trimodal.core.progress import log, summary_line
from trimodal.evaluation.results import MAPS
from trimodal.report.comparison_table import own_comparison
from trimodal.report.evaluated import read_test_set
from trimodal.report.examples import example_groups, unreadable_sounds
from trimodal.report.figures import loss_curves, recall_by_audio_weight
from trimodal.report.headline import commit_command, headline, headline_table, run_facts
from trimodal.report.html import report_page
from trimodal.report.model_card import model_card
from trimodal.report.rendering import render
from trimodal.report.results import Metrics, Results, read_results
from trimodal.report.sound_maps import localisation_table, sound_map_section
from trimodal.report.tables import (
    audit_table,
    direction_table,
    geometry_table,
    main_table,
    search_table,
    sets_table,
    zero_shot_table,
)


def write_report(
    metrics_dir: Path,
    model: Path,
    params: Path,
    evaluation: Path,
    av_dir: Path,
    manifest: Path,
    out_dir: Path,
) -> None:
    """Reads the metrics, the checkpoint's JSON, params.yaml, what ``evaluate`` left in
    ``evaluation``, a folder a test set, the shards, and some sounds of the manifest's clips. Writes
    ``report.md``, the paper's table alone as ``table.md``, ``report.html``, ``model_card.md``, and
    the plots ``training.svg`` and ``audio_weight.svg``. Without a test set of kind text_video these
    have no part about it, and there is no ``audio_weight.svg``.
    """
    checkpoint = read_json(model)
    results = read_results(metrics_dir, evaluation, checkpoint["epoch"])
    settings = read_yaml(params)
    card = model_card(checkpoint, settings, results)
    facts, commit = run_facts(checkpoint, settings), commit_command(checkpoint)
    test_set = read_test_set(evaluation / results.main) if results.main else None
    sound_maps = [
        sound_map_section(
            name, results.metrics[name], results.audits[name]["queries"], evaluation / name / MAPS
        )
        for name in results.of_kind("localisation")
    ]
    seconds = checkpoint["window"]["seconds"]
    examples = (
        example_groups(test_set, results.audit["audio_weight"], av_dir, manifest, seconds)
        if test_set
        else []
    )
    page = report_page(results, test_set, facts, commit, examples, sound_maps)
    table = main_table(results) if results.main else None
    with atomic_path(out_dir) as temporary:
        temporary.mkdir()
        write_text(temporary / "report.md", report_markdown(results, facts, commit))
        write_text(temporary / "table.md", render("table.md.j2", table=table))
        write_text(temporary / "model_card.md", card)
        write_text(temporary / "report.html", page)
        with mpl.rc_context({"svg.hashsalt": "trimodal", "font.size": 10}):
            if results.main:
                audio_weight = results.audit["audio_weight"]
                weights = recall_by_audio_weight(results.audio_weight_curve, audio_weight)
                _save(weights, temporary / "audio_weight.svg")
            _save(loss_curves(results.losses, results.epoch), temporary / "training.svg")
    written = f"report: {out_dir / 'report.html'}, report.md, model_card.md"
    log.info(summary_line(written, unreadable_sounds(examples)))


def report_markdown(results: Results, facts: Mapping[str, str], commit: str) -> str:
    """The whole report as Markdown."""
    return render(
        "report.md.j2",
        epoch=results.epoch,
        facts=facts,
        commit=commit,
        videos=_of_videos(results) if results.main else None,
        has_sets=bool(results.metrics),
        sets_table=sets_table(results),
        zero_shot_table=zero_shot_table(results),
        localisation_table=localisation_table(results),
    )


def _of_videos(results: Results) -> dict[str, Any]:
    """What the template says of the test set of kind text_video."""
    retrieval, audit = results.retrieval, results.audit
    sound_captions = retrieval.get("demo", {}).get("sound_captions")
    other_protocol = retrieval.get("other_protocol")
    return {
        "audit": audit,
        "headline": headline(results),
        "headline_table": headline_table(results),
        "main_table": main_table(results),
        "sound_captions": sound_captions,
        "audio_helps": bool(sound_captions) and _audio_helps(sound_captions),
        "sound_caption_table": search_table(sound_captions) if sound_captions else None,
        "comparison_revision": results.comparison["git"],
        "comparison": own_comparison(results),
        "direction_table": direction_table(retrieval),
        "other_protocol_table": search_table(other_protocol) if other_protocol else None,
        "audit_table": audit_table(audit),
        "geometry_table": geometry_table(audit),
    }


def _audio_helps(by_search: Metrics) -> bool:
    return bool(by_search["image_audio"]["MeanR"] < by_search["image"]["MeanR"])


def _save(figure: Figure, path: Path) -> None:
    figure.savefig(path, format="svg", metadata={"Date": None, "Creator": None})
