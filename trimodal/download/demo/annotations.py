"""The demo's annotation files, in the formats of the real data sets."""

import csv
import io
import json
import re
import zipfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image

from trimodal.core.extras import imports_of
from trimodal.core.files import atomic_path, write_table
from trimodal.core.schemas import TRUTH_SCHEMA
from trimodal.download.demo.captions import (
    NOUNS,
    VERBS,
    VideoCaption,
    image_captions,
    video_caption,
)
from trimodal.download.demo.draw import draw_scene, sounding_boxes
from trimodal.download.demo.scenes import Scene, heard_facts, seen_facts
from trimodal.download.demo.world import DemoConfig, World

JPEG_QUALITY = 90
VECTOR_DIMENSIONS = 300
_STREAMS = ("coco_train", "coco_val", "flickr", "test", "seconds")


def write_annotations(world: World, directory: Path, cfg: DemoConfig) -> None:
    """Writes clip lists, captions, images, word vectors and the ground truth into `directory`.

    Equal `world` and `cfg` give equal bytes. Word vectors are trained on training captions only.
    """
    coco, flickr = directory / "coco", directory / "flickr30k"
    train = _captions_of(world.images_coco_train, "coco_train", cfg)
    val = _captions_of(world.images_coco_val, "coco_val", cfg)
    photos = _captions_of(world.images_flickr, "flickr", cfg)
    _write_images(world.images_coco_train, coco / "train2017.zip", cfg)
    _write_images(world.images_coco_val, coco / "val2017.zip", cfg)
    _write_images(world.images_flickr, flickr / "images.zip", cfg)
    (coco / "annotations").mkdir(parents=True, exist_ok=True)
    for split, scenes, captions in (
        ("train", world.images_coco_train, train),
        ("val", world.images_coco_val, val),
    ):
        text = json.dumps(_coco(scenes, captions, cfg.frame_px))
        (coco / "annotations" / f"captions_{split}2017.json").write_text(text, encoding="utf-8")
    _write_flickr(world.images_flickr, photos, flickr / "results.csv")
    _write_vggsound(world.train, directory / "vggsound.csv")
    test = [video_caption(scene, _rng(cfg, "test", i)) for i, scene in enumerate(world.test)]
    _write_msrvtt(world.test, test, directory / "MSRVTT_JSFUSION_test.csv")
    _write_truth(world.test, test, directory / "truth.parquet", cfg)
    _write_word2vec([*train, *photos], directory / "word2vec.bin", cfg.seed)


def _rng(cfg: DemoConfig, stream: str, number: int) -> np.random.Generator:
    return np.random.default_rng([cfg.seed, 100 + _STREAMS.index(stream), number])


def _captions_of(scenes: Sequence[Scene], stream: str, cfg: DemoConfig) -> list[list[str]]:
    return [image_captions(scene, _rng(cfg, stream, i)) for i, scene in enumerate(scenes)]


def _write_images(scenes: Iterable[Scene], path: Path, cfg: DemoConfig) -> None:
    """A zip, like COCO's: DVC would check every file of a folder before each run."""
    with atomic_path(path) as temporary, zipfile.ZipFile(temporary, "w") as archive:
        for number, scene in enumerate(scenes):
            second = cfg.clip_seconds * (number * 37 % 100) / 100
            content = io.BytesIO()
            Image.fromarray(draw_scene(scene, second, cfg.frame_px)).save(
                content, "JPEG", quality=JPEG_QUALITY
            )
            member = zipfile.ZipInfo(
                f"{path.stem}/{scene.name}"
            )  # dated 1980, so that the bytes do not change
            archive.writestr(member, content.getvalue())


def _coco(
    scenes: Sequence[Scene], captions: Sequence[Sequence[str]], frame_px: int
) -> dict[str, Any]:
    images = [
        {"license": 1, "file_name": scene.name, "height": frame_px, "width": frame_px,
         "id": int(scene.name.removesuffix(".jpg"))}
        for scene in scenes
    ]  # fmt: skip
    rows = [
        (image["id"], text) for image, texts in zip(images, captions, strict=True) for text in texts
    ]
    annotations = [
        {"image_id": image_id, "id": number, "caption": text}
        for number, (image_id, text) in enumerate(rows, start=1)
    ]
    return {
        "info": {"description": "rendered scenes in the format of COCO 2017", "version": "1.0"},
        "licenses": [{"id": 1, "name": "rendered by this project", "url": ""}],
        "images": images,
        "annotations": annotations,
    }


def _write_flickr(scenes: Sequence[Scene], captions: Sequence[Sequence[str]], path: Path) -> None:
    """The real file's separators, and its one row whose last separator is missing."""
    lines = ["image_name| comment_number| comment"]
    for number, (scene, texts) in enumerate(zip(scenes, captions, strict=True)):
        for comment, caption in enumerate(texts):
            text = caption.rstrip(".") + " ."
            broken = comment == 4 and number == len(scenes) // 2
            lines.append(f"{scene.name}| {comment}{'   ' if broken else '| '}{text}")
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _label(scene: Scene) -> str:
    main = scene.things[0].kind
    sound = next((s for s in scene.sounds if s.on_screen), None) or next(iter(scene.sounds), None)
    if sound is None:
        return f"{NOUNS[main][0]}, quiet"
    label = f"{NOUNS[sound.kind][0]} {VERBS[sound.kind][0].ongoing}"
    return label if sound.on_screen else f"{label}, off screen"


def _write_vggsound(scenes: Iterable[Scene], path: Path) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        for scene in scenes:
            youtube_id, _, start = scene.name.rpartition("_")
            writer.writerow([youtube_id, int(start), _label(scene), "train"])


def _write_msrvtt(scenes: Iterable[Scene], captions: Iterable[VideoCaption], path: Path) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["key", "vid_key", "video_id", "sentence"])
        for number, (scene, caption) in enumerate(zip(scenes, captions, strict=True)):
            msr = "msr" + scene.name.removeprefix("video")
            writer.writerow([f"ret{number}", msr, scene.name, caption.text])


def _write_truth(
    scenes: Iterable[Scene], captions: Iterable[VideoCaption], path: Path, cfg: DemoConfig
) -> None:
    rows = [
        {
            "video_id": scene.name,
            "video_seen": list(seen_facts(scene)),
            "video_heard": list(heard_facts(scene)),
            "caption_seen": list(caption.seen_facts),
            "caption_heard": list(caption.heard_facts),
            "has_audio": not scene.silent,
            "sounding_boxes": sounding_boxes(
                scene, seconds=cfg.clip_seconds, fps=cfg.fps, frame_px=cfg.frame_px
            ),
        }
        for scene, caption in zip(scenes, captions, strict=True)
    ]
    write_table(path, pa.Table.from_pylist(rows, schema=TRUTH_SCHEMA))


def _write_word2vec(captions: Iterable[Sequence[str]], path: Path, seed: int) -> None:
    """300-d vectors of words that occur at least twice, the same in every process.

    The captions of one image are one text, and the window spans all of it: within one sentence any
    colour fits, so only co-occurrence across captions tells red from blue.
    """
    sentences = [re.findall(r"[a-z]+", " ".join(texts).lower()) for texts in captions]
    with imports_of("pipeline"):
        from gensim.models import Word2Vec  # a heavy import that rendering workers do not need

    model = Word2Vec(
        sentences,
        vector_size=VECTOR_DIMENSIONS,
        window=60,
        shrink_windows=False,
        min_count=2,
        negative=10,
        epochs=12,
        seed=seed,
        workers=1,
    )
    model.wv.save_word2vec_format(str(path), binary=True)
