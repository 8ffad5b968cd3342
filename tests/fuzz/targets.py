"""The readers that are fuzzed: where each finds its file, its valid files, what must hold of what
it reads. An input is read, or refused with a clear error that names the file; never anything else.
"""

import json
import re
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import yaml
from configs import config_for_tests
from data_fixtures import write_vectors
from test_checkpoint import CHECKPOINT, FRONT_END
from training_fixtures import VARIABLE_MARGIN

from trimodal.core.config import ConfigError, load_section
from trimodal.core.files import write_table
from trimodal.core.fingerprint import file_fingerprint
from trimodal.core.records import DataError
from trimodal.core.schemas import AV_SCHEMA
from trimodal.core.shard_writer import Sample, write_shard
from trimodal.data.clip_index import read_index
from trimodal.download.demo.annotations import write_annotations
from trimodal.download.demo.world import DemoConfig, sample_world
from trimodal.evaluation.prompt_files import read_classes, read_templates
from trimodal.losses.config import LossConfig
from trimodal.media.mel import MelConfig
from trimodal.media.shard_format import index_metadata
from trimodal.models.checkpoint import FORMAT, read_checkpoint
from trimodal.overlay import apply_overlay
from trimodal.sources.coco import read_coco
from trimodal.sources.flickr30k import read_flickr30k
from trimodal.sources.karpathy import read_karpathy
from trimodal.sources.labelled_files import (
    SOUND_SUFFIXES,
    LabelledFiles,
    read_audioset_files,
    read_esc50,
    read_label_table,
)
from trimodal.sources.msrvtt import read_queries
from trimodal.sources.sound_boxes import SoundBoxes, read_flickr_soundnet, read_vggss
from trimodal.sources.vggsound import read_vggsound
from trimodal.sources.word2vec import read_vectors

CLEAR = (DataError, ConfigError)
_WIDTH = 3
_DEMO = config_for_tests(
    DemoConfig, clips=14, clip_seconds=3.0, frame_px=32, fps=2, images_per_clip=2
)


@dataclass(frozen=True, kw_only=True)
class Target:
    """``read`` gets the folder in which the input stands as ``file``; ``prepare`` puts there what
    else it needs; ``seeds`` writes a valid world and returns valid inputs.
    """

    file: str
    read: Callable[[Path], None]
    seeds: Callable[[Path], list[bytes]]
    words: tuple[bytes, ...] = ()
    prepare: Callable[[Path], None] = lambda _: None
    clear: tuple[type[Exception], ...] = CLEAR


def execute(target: Target, folder: Path, content: bytes) -> bool:
    """Reads one input; tells whether it was accepted. Raises AssertionError for a clear error that
    does not name the file, and whatever else the reader raises.
    """
    (folder / target.file).write_bytes(content)
    try:
        target.read(folder)
    except target.clear as error:
        if folder.name not in str(error):
            raise AssertionError("the message does not name the file") from error
        return False
    return True


# What must hold of what is read


def _check_names(names: Iterable[str]) -> None:
    for name in names:
        assert re.fullmatch(r"[A-Za-z0-9_-]{1,128}", name), name


def _vggsound(folder: Path) -> None:
    clips, bad = read_vggsound(folder / "vggsound.csv", ("train", "test"))
    _check_names(clip.clip_id for clip in clips)
    assert len({clip.clip_id for clip in clips}) == len(clips)
    _check_counts(bad, len(clips))


def _boxes(read: tuple[list[SoundBoxes], Counter[str]]) -> None:
    found, _ = read
    _check_names(of.name for of in found)
    assert found
    for left, top, right, bottom in (box for of in found for box in of.boxes):
        assert 0 <= left <= right <= 1
        assert 0 <= top <= bottom <= 1


def _queries(path: Path) -> None:
    queries, bad = read_queries(path)
    assert queries
    _check_names(query.video_id for query in queries)
    assert len({query.query_id for query in queries}) == len(queries) or path.suffix == ".csv"
    assert all(query.sentence.strip() for query in queries)
    if path.suffix == ".csv":
        _check_counts(bad, len(queries))


def _check_counts(bad: Counter[str], good: int) -> None:
    """As many bad rows as a file may have."""
    assert all(count > 0 for count in bad.values())
    assert bad.total() <= max(1, 0.01 * (bad.total() + good) + 1)


def _captioned(images: list[Any]) -> None:
    _check_names(image.image_id for image in images)
    assert len({image.image_id for image in images}) == len(images)
    for image in images:
        assert Path(image.file_name).name == image.file_name
        assert image.captions
        assert all(caption == caption.strip() != "" for caption in image.captions)
        assert "\n".join(image.captions).encode()


_LABELLED = ("a.wav", "b.wav", "abcdefghijk_30.wav")


def _write_sounds(folder: Path) -> None:
    for sounds in (folder / "audio", folder / "meta"):
        sounds.mkdir()
    for name in _LABELLED:
        (folder / "audio" / name).touch()


def _labelled(found: LabelledFiles) -> None:
    assert len({row.name for row in found.files}) == len(found.files)
    for row in found.files:
        assert row.file.name in _LABELLED
        assert row.labels
        assert all(label == label.strip() != "" for label in row.labels)
    assert all(count > 0 for count in found.left_out.values())


def _classes(folder: Path) -> None:
    classes = read_classes(str(folder / "classes.txt"))
    assert len(set(classes.labels)) == len(classes.labels) == len(classes.words) > 0
    assert all(text == text.strip() != "" for text in classes.labels + classes.words)


def _templates(folder: Path) -> None:
    for prompt in read_templates(str(folder / "templates.txt")).prompts("WORDS"):
        assert prompt.count("WORDS") >= 1
        assert "{" not in prompt


def _vectors(folder: Path) -> None:
    vectors = read_vectors(folder / "vectors.bin", ["dog", "é"], _WIDTH, frequent_rows=3)
    for vector in vectors.values():
        assert vector.shape == (_WIDTH,)
        assert np.isfinite(vector).all()


def _overlay(folder: Path) -> None:
    """A params file stays whole whether or not an overlay can be written into it."""
    before = "# all numbers\ntrain:\n  epochs: 1  # few\nmel: {mels: 8}\nloss: {margin: 1}\n"
    params = folder / "params.yaml"
    params.write_text(before)
    try:
        apply_overlay(params, folder / "overlay.yaml")
    except CLEAR:
        assert params.read_text() == before
        raise
    assert yaml.safe_load(params.read_text()).keys() == yaml.safe_load(before).keys()


# Seeds


def _world(folder: Path) -> Path:
    if not (folder / "world").exists():
        write_annotations(sample_world(_DEMO), folder / "world", _DEMO)
    return folder / "world"


def _head(path: Path, lines: int = 8) -> list[bytes]:
    return [b"".join(path.read_bytes().splitlines(keepends=True)[:lines])]


def _json(*contents: Any) -> list[bytes]:
    return [json.dumps(content).encode() for content in contents]


def _coco_seed(folder: Path) -> list[bytes]:
    path = _world(folder) / "coco" / "annotations" / "captions_val2017.json"
    content = json.loads(path.read_text())
    small = {"images": content["images"][:2], "annotations": content["annotations"][:6]}
    return _json(small)


def _karpathy_seed(_: Path) -> list[bytes]:
    rows = [
        {"cocoid": 42, "filename": "COCO_val2014_000000000042.jpg", "split": "restval"},
        {"cocoid": 9, "filename": "b.jpg", "split": "val"},
        {"cocoid": 7, "filename": "c.jpg", "split": "test"},
    ]
    return _json({"images": [row | {"sentences": [{"raw": "a dog"}]} for row in rows]})


def _msrvtt_seed(_: Path) -> list[bytes]:
    videos = [{"video_id": f"video{n}", "split": s} for n, s in enumerate(("train", "test"))]
    sentences = [{"video_id": f"video{n % 2}", "sen_id": n, "caption": "a dog"} for n in range(4)]
    return _json(
        {"videos": videos, "sentences": sentences},
        [{"video": "video7.mp4", "caption": "a dog"}, {"video_id": "video8", "caption": "a cat"}],
    )


def _vectors_seed(folder: Path) -> list[bytes]:
    path = write_vectors(folder / "seed.bin", ["dog", "é", "cat"], _WIDTH)
    return [path.read_bytes(), path.read_bytes().replace(b"dog ", b"\ndog ")]


_MEL = FRONT_END.mel


def _params_seed(_: Path) -> list[bytes]:
    return [yaml.safe_dump({"mel": asdict(_MEL), "loss": asdict(VARIABLE_MARGIN)}).encode()]


def _checkpoint_seed(folder: Path) -> list[bytes]:
    _write_weights(folder)
    facts = {"format": FORMAT, "weights": file_fingerprint(folder / "model.safetensors")}
    return _json(facts | asdict(CHECKPOINT))


def _write_weights(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(b"weights")


def _write_av(folder: Path) -> None:
    """A shard of one clip, its index and its stats."""
    sample = Sample(key="clip", members={"01.jpg": b"jpeg"})
    picture = write_shard(folder / "train-000000.tar", [sample])["clip"]["01.jpg"]
    row = {
        "split": "train", "shard": "train-000000.tar", "shard_fingerprint": "f", "clip_id": "clip",
        "label": "", "duration_s": 1.0, "sound_s": 0.0, "frame_offsets": [picture.offset],
        "frame_sizes": [picture.size], "mel_offset": 0,
        "top_db_offset": 0, "mel_columns": 0,
        "youtube_id": "", "picture_fingerprints": [0],
    }  # fmt: skip
    schema = AV_SCHEMA.with_metadata(index_metadata(_MEL))
    write_table(folder / "index.parquet", pa.Table.from_pylist([row], schema))


def _index(folder: Path) -> None:
    for clip in read_index(folder, "train", _MEL):
        assert clip.frames == len(clip.frame_sizes) > 0
        assert clip.shard.parent == folder


def _index_seed(folder: Path) -> list[bytes]:
    _write_av(folder)
    return [(folder / "index.parquet").read_bytes()]


_CSV = (b",", b'"', b"\r", b"\0", b"train", b"test", b"_", b"-")
_JSON = (
    b"[", b"]", b"{", b"}", b"null", b"true", b"NaN", b"1e999", b"-1", b"\\ud800", b'"images"',
    b'"id"', b'"file_name"', b'"annotations"', b'"image_id"', b'"caption"', b'"videos"',
    b'"sentences"', b'"video_id"', b'"sen_id"', b'"split"', b'"raw"', b'"cocoid"', b'"filename"',
    b'"../x"',
)  # fmt: skip
_VGGSS = b'[{"file": "zpWuikVorYg_000032", "class": "elk", "bbox": [[0.4, 0.25, 0.6, 1.5]]}]'
_BBOX = b"<bbox><a>1</a><b>0</b><c>0</c><d>128</d><e>256</e></bbox>"
_XML = (b"<bbox>", b"</bbox>", b"<!DOCTYPE a [", b"<!ENTITY b 'c'>]>", b"&b;", b"<?xml encoding='",
        b"-1", b"999", b"<![CDATA[", b"]]>")  # fmt: skip
_YAML = (
    b"&a", b"*a", b"<<: ", b"!!int ", b"!!timestamp ", b"!!python/name:os.system ", b"? ", b"- ",
    b": ", b".nan", b".inf", b"2020-99-99", b"0x_", b"1:60", b"|", b">", b"{", b"}", b"[", b"]",
    b"%YAML 1.1", b"---", b"mel:", b"loss:", b"train:", b"download:", b"\t", b"#", b"'",
)  # fmt: skip

TARGETS: dict[str, Target] = {
    "vggsound_csv": Target(
        file="vggsound.csv", read=_vggsound, words=_CSV,
        seeds=lambda folder: _head(_world(folder) / "vggsound.csv"),
    ),
    "vggss_json": Target(
        file="vggss.json", read=lambda folder: _boxes(read_vggss(folder / "vggss.json")),
        seeds=lambda _: [_VGGSS], words=(*_JSON, b'"file"', b'"bbox"'),
    ),
    "flickr_soundnet_xml": Target(
        file="1.xml", read=lambda folder: _boxes(read_flickr_soundnet(folder)), words=_XML,
        seeds=lambda _: [b"<annotation><o>" + 2 * _BBOX + b"</o></annotation>"],
    ),
    "msrvtt_csv": Target(
        file="queries.csv", read=lambda folder: _queries(folder / "queries.csv"), words=_CSV,
        seeds=lambda folder: _head(_world(folder) / "MSRVTT_JSFUSION_test.csv"),
    ),
    "msrvtt_json": Target(
        file="queries.json", read=lambda folder: _queries(folder / "queries.json"), words=_JSON,
        seeds=_msrvtt_seed,
    ),
    "labels_csv": Target(
        file="labels.csv", prepare=_write_sounds, words=(*_CSV, b";", b"file", b"fold"),
        read=lambda folder: _labelled(
            read_label_table(folder / "labels.csv", folder / "audio", SOUND_SUFFIXES)
        ),
        seeds=lambda _: [b"file,label\na.wav,dog\n", b"file,labels,fold\nb.wav,dog;cat,1\n"],
    ),
    "esc50_csv": Target(
        file="meta/esc50.csv", prepare=_write_sounds, words=_CSV,
        read=lambda folder: _labelled(read_esc50(folder)),
        seeds=lambda _: [b"filename,fold,target,category\na.wav,1,0,dog\nb.wav,2,1,cat\n"],
    ),
    "audioset_csv": Target(
        file="segments.csv", prepare=_write_sounds, words=(*_CSV, b"#", b"/m/", b"30.000"),
        read=lambda folder: _labelled(
            read_audioset_files(folder / "segments.csv", folder / "audio", SOUND_SUFFIXES)
        ),
        seeds=lambda _: [b'# YTID\nabcdefghijk, 30.000, 40.000, "/m/09x0r,/m/068hy"\n'],
    ),
    "classes_txt": Target(
        file="classes.txt", read=_classes, words=(b"#", b"|", b"{}", b"\r", b"# version 1\n"),
        seeds=lambda _: [b"# version 1\ndog\nsea_waves | sea waves\n"],
    ),
    "templates_txt": Target(
        file="templates.txt", read=_templates, words=(b"#", b"{", b"}", b"\r", b"# version 1\n"),
        seeds=lambda _: [b"# version 1\n{}\nthe sound of {}\n"],
    ),
    "coco_json": Target(
        file="annotations/captions_val2017.json",
        prepare=lambda folder: (folder / "annotations").mkdir(),
        read=lambda folder: _captioned(read_coco(folder, "val")[0]), words=_JSON, seeds=_coco_seed,
    ),
    "flickr30k_csv": Target(
        file="results.csv", read=lambda folder: _captioned(read_flickr30k(folder)[0]),
        words=(b"|", b"| ", b".jpg", b"\r", b"\0", b"0", b"   "),
        seeds=lambda folder: _head(_world(folder) / "flickr30k" / "results.csv"),
    ),
    "karpathy_coco_json": Target(
        file="dataset_coco.json", words=_JSON, seeds=_karpathy_seed,
        read=lambda folder: _captioned(read_karpathy(folder, "coco")[0]),
    ),
    "karpathy_flickr30k_json": Target(
        file="dataset_flickr30k.json", words=_JSON, seeds=_karpathy_seed,
        read=lambda folder: _captioned(read_karpathy(folder, "flickr30k")[0]),
    ),
    "params_yaml": Target(
        file="params.yaml", words=_YAML, seeds=_params_seed,
        read=lambda folder: [
            load_section(folder / "params.yaml", name, cls)
            for name, cls in (("mel", MelConfig), ("loss", LossConfig))
        ] and None,
    ),
    "overlay_yaml": Target(
        file="overlay.yaml", words=_YAML, read=_overlay,
        seeds=lambda _: [b"train: {epochs: 3}\n", b"mel:\n  mels: 64 # few\nloss: {}\n", b"{}"],
    ),
    "checkpoint_json": Target(
        file="config.json", words=_JSON, seeds=_checkpoint_seed, prepare=_write_weights,
        read=lambda folder: read_checkpoint(folder) and None,
    ),
    "av_index_parquet": Target(
        file="index.parquet", seeds=_index_seed, prepare=_write_av, read=_index,
    ),
    "word2vec_bin": Target(
        file="vectors.bin", read=_vectors, seeds=_vectors_seed,
        words=(b"\x1f\x8b", b"3 3\n", b" ", b"\n", b"99999999999"),
    ),
}  # fmt: skip
