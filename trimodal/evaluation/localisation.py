"""Test sets of kind ``localisation``: where in a picture does it sound? (docs/evaluation.md)"""

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import simplejpeg
import torch
from torch import Tensor

from trimodal.core.coverage import check_coverage
from trimodal.core.progress import bar
from trimodal.core.records import DataError
from trimodal.core.schemas import SOUND_MAP_SCHEMA
from trimodal.core.shards import read_extents
from trimodal.data.clip_index import IndexedClip
from trimodal.data.shard_files import ReadShard
from trimodal.evaluation.localisation_items import (
    Item,
    LeftOutError,
    read_items,
)
from trimodal.evaluation.localisation_measures import (
    MAP_PX,
    Map,
    as_many_as_true,
    best_half,
    consensus_iou,
    nearness_to_centre,
    summarise_cious,
    true_map,
    upper_half,
)
from trimodal.evaluation.localisation_set import LocalisationSet
from trimodal.evaluation.retrieval import EmbeddingError
from trimodal.media.heat_map import heat_map_png, upsampled
from trimodal.models.checkpoint import Checkpoint
from trimodal.models.networks import TrimodalNet
from trimodal.models.preprocessing import centre_crop_shares, centre_views
from trimodal.models.sound_map import place_embeddings, similarity_map

# Annotators that must agree before a pixel counts in full: of Flickr-SoundNet's three, two.
_AGREEING = {"demo": 1, "vggss": 1, "flickr_soundnet": 2}
_EXAMPLES = 6
_JPEG_QUALITY = 90
_NAMED = 20  # items of a reason
_SOUND, _OTHER, _CENTRE = "sound", "other_sound", "centre"
_HALF, _AS_MANY = "half", "as_many"


@dataclass(frozen=True, kw_only=True)
class LocalisationResults:
    """``metrics`` has finite numbers only. ``audit`` has counts, and the names of what was left out
    (the first 20 of a reason). ``maps``, of SOUND_MAP_SCHEMA, are examples from best to worst.
    """

    metrics: dict[str, Any]
    audit: dict[str, Any]
    maps: pa.Table


@dataclass(frozen=True, kw_only=True)
class _Compared:
    """``items`` that could be read, the map of each, (h, w), which ``covers`` this part of its
    picture, and its cIoUs by map and rule; the names of the others by reason.
    """

    items: list[Item]
    maps: list[Tensor]
    covers: tuple[float, float]
    cious: Mapping[str, Mapping[str, list[float]]]
    unusable: dict[str, list[str]]


def evaluate_localisation(
    test_set: LocalisationSet,
    network: TrimodalNet,
    checkpoint: Checkpoint,
    clips: Sequence[IndexedClip],
    *,
    min_coverage: float,
    resamples: int,
    read: ReadShard = read_extents,
    device: torch.device | None = None,
    left_out: Collection[str] = (),
) -> LocalisationResults:
    """Compares the map of each item's sound with its boxes: on the middle frame of a clip and the
    sound around it, or on a picture and the middle of its sound. ``clips`` are those of the test
    shards. Items ``left_out`` do not count.

    Metrics are of the map of the ``sound`` and, as controls, of the sound of the item before
    (``other_sound``) and of nearness to the picture's ``centre``; each by two regions: the upper
    ``half`` of the pixels, the published rule, and ``as_many`` pixels as are true. ``best`` is the
    most that the first allows.

    Raises TowerError for an image network without a map of its features, EmbeddingError for a map
    that is not finite, and DataError for annotations that cannot be read, for less than
    ``min_coverage`` of the annotated items, and for fewer than two.
    """
    network = network.to(device or torch.device("cpu")).eval()
    annotated = read_items(test_set, checkpoint, clips, read)
    items = [item for item in annotated.items if item.name not in left_out]
    compared = _compare(network, checkpoint, items, _AGREEING[test_set.annotations])
    unusable = {reason: len(names) for reason, names in compared.unusable.items()}
    check_coverage(
        "evaluate",
        "annotated items",
        len(compared.items),
        unusable,
        required=min_coverage,
        param="evaluate.min_coverage",
        examples={reason: names[0] for reason, names in compared.unusable.items()},
    )
    if len(compared.items) < 2:
        raise DataError(
            f"{test_set.path}: at least 2 usable items are needed, not {len(compared.items)}"
        )
    metrics = {
        name: {rule: summarise_cious(np.array(of), resamples) for rule, of in by_rule.items()}
        for name, by_rule in compared.cious.items()
    }
    names = compared.unusable | {"without a box": annotated.without_box}
    counts = {reason: len(of) for reason, of in names.items() if of} | annotated.bad_rows
    if len(items) < len(annotated.items):
        counts["seen in training"] = len(annotated.items) - len(items)
    audit = {
        "annotations": test_set.annotations,
        "queries": len(compared.items),
        "gallery": len(compared.items),
        "left_out": dict(sorted(counts.items())),
        "left_out_names": {reason: of[:_NAMED] for reason, of in sorted(names.items()) if of},
    }
    return LocalisationResults(metrics=metrics, audit=audit, maps=_examples(compared))


def _compare(
    network: TrimodalNet, checkpoint: Checkpoint, items: Sequence[Item], agreeing: int
) -> _Compared:
    """One item at a time, so that results do not depend on a batch."""
    usable: list[Item] = []
    maps: list[Tensor] = []
    cious: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    unusable: dict[str, list[str]] = defaultdict(list)
    first: tuple[Tensor, Map] | None = None  # compared with the last item's sound in the end
    previous: Tensor | None = None

    covers = centre_crop_shares(checkpoint.frame_px, checkpoint.augment)

    def add(name: str, heat: Map, truth: Map) -> None:
        cious[name][_HALF].append(consensus_iou(upper_half(heat), truth))
        cious[name][_AS_MANY].append(consensus_iou(as_many_as_true(heat, truth), truth))

    centre = nearness_to_centre()
    for item in bar(items, task="localising", unit="items", total=len(items)):
        truth = true_map(item.boxes, agreeing)
        try:
            of_places, sound = _embedded(network, checkpoint, item, truth)
        except LeftOutError as error:
            unusable[str(error)].append(item.name)
            continue
        heat = similarity_map(of_places, sound)
        if not torch.isfinite(heat).all():
            raise EmbeddingError(f"evaluate: the map of {item.name} is not finite")
        add(_SOUND, _large(heat, covers), truth)
        if previous is not None:
            add(_OTHER, _large(similarity_map(of_places, previous), covers), truth)
        else:
            first = of_places, truth
        add(_CENTRE, centre, truth)
        cious["best"][_HALF].append(consensus_iou(best_half(truth), truth))
        previous = sound
        usable.append(item)
        maps.append(heat[0].cpu())
    if first and previous is not None:
        add(_OTHER, _large(similarity_map(first[0], previous), covers), first[1])
    return _Compared(items=usable, maps=maps, covers=covers, cious=cious, unusable=unusable)


@torch.inference_mode()
def _embedded(
    network: TrimodalNet, checkpoint: Checkpoint, item: Item, truth: Map
) -> tuple[Tensor, Tensor]:
    """The embeddings of an item's places, (1, h, w, dim), and of its sound, (1, dim)."""
    if not truth.any():
        raise LeftOutError("boxes without area")
    device = next(network.parameters()).device
    pixels, window = item.read()
    return (
        place_embeddings(network, centre_views([pixels], checkpoint.augment).to(device)),
        network.audio(window[None].to(device)),
    )


def _large(heat: Tensor, covers: tuple[float, float]) -> Map:
    return upsampled(heat[0], MAP_PX, MAP_PX, covers)


def _examples(compared: _Compared) -> pa.Table:
    """Items evenly spaced from the best to the worst by the region of as many pixels."""
    halves, as_many = compared.cious[_SOUND][_HALF], compared.cious[_SOUND][_AS_MANY]
    order = sorted(range(len(as_many)), key=lambda row: -as_many[row])
    positions = np.linspace(0, len(order) - 1, min(_EXAMPLES, len(order))).round().astype(int)
    rows = []
    for row in (order[position] for position in positions):
        item = compared.items[row]
        frame = item.read()[0].permute(1, 2, 0).contiguous().numpy()
        rows.append(
            {
                "name": item.name,
                "ciou_half": halves[row],
                "ciou_as_many": as_many[row],
                "frame": simplejpeg.encode_jpeg(frame, _JPEG_QUALITY),
                "heat_map": heat_map_png(compared.maps[row], MAP_PX, MAP_PX, compared.covers),
                "boxes": [list(box) for box in item.boxes],
            }
        )
    return pa.Table.from_pylist(rows, schema=SOUND_MAP_SCHEMA)
