"""What exported pairs say about themselves: the card of Hugging Face's Hub
(https://huggingface.co/docs/hub/datasets-cards), and Croissant 1.1 metadata
(https://docs.mlcommons.org/croissant/docs/croissant-spec-1.1.html).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml
from jinja2 import Environment, PackageLoader, StrictUndefined

from trimodal.data.pair_tables import Column
from trimodal.media.windows import AudioFrontEnd

_NAME = "trimodal-pairs"
_DESCRIPTION = (
    "Pairs to learn one embedding space for images, sounds and words: video frames with the "
    "log-mel of the audio around them, and images with captions."
)
_CROISSANT_TYPES = {
    "string": "sc:Text", "int32": "cr:Int32", "float32": "cr:Float32", "float64": "cr:Float64",
}  # fmt: skip
_SIZES = (1_000, 10_000, 100_000, 1_000_000, 10_000_000, 100_000_000, 1_000_000_000)
_SIZE_NAMES = ("1K", "10K", "100K", "1M", "10M", "100M", "1B")
_TEMPLATES = Environment(
    loader=PackageLoader("trimodal.data"),
    undefined=StrictUndefined,
    autoescape=False,  # noqa: S701 - Markdown, without text from the data
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
)


@dataclass(frozen=True, kw_only=True)
class ParquetFile:
    """A written file, named relative to the exported folder. Its rows take ``arrow_bytes`` in
    memory.
    """

    name: str
    split: str
    rows: int
    bytes: int
    arrow_bytes: int
    sha256: str


@dataclass(frozen=True, kw_only=True)
class Configuration:
    """One of the exported tables: its files, in order, and what was ``left_out``, in words."""

    name: str
    columns: Sequence[Column]
    files: Sequence[ParquetFile]
    left_out: str

    @property
    def splits(self) -> dict[str, int]:
        """The number of rows of each split."""
        names = dict.fromkeys(file.split for file in self.files)
        return {name: sum(f.rows for f in self.files if f.split == name) for name in names}


def dataset_card(configurations: Sequence[Configuration], front_end: AudioFrontEnd) -> str:
    """The card: YAML that ``datasets.load_dataset`` obeys, and Markdown."""
    front_matter = {
        "pretty_name": "Image-audio and image-text pairs",
        "license": "unknown",
        "tags": ["audio", "image", "text", "contrastive-learning", "cross-modal-retrieval"],
        "size_categories": [_size_category(sum(sum(c.splits.values()) for c in configurations))],
        "configs": [_data_files(c, default=c is configurations[0]) for c in configurations],
        "dataset_info": [_dataset_info(c) for c in configurations],
    }
    return _TEMPLATES.get_template("dataset_card.md.j2").render(
        front_matter=yaml.safe_dump(front_matter, sort_keys=False),
        configurations=configurations,
        mel=front_end.mel,
        window=front_end.window,
    )


def _size_category(rows: int) -> str:
    place = sum(rows >= size for size in _SIZES)
    if place == 0:
        return "n<1K"
    if place == len(_SIZES):
        return "n>1B"
    return f"{_SIZE_NAMES[place - 1]}<n<{_SIZE_NAMES[place]}"


def _data_files(configuration: Configuration, *, default: bool) -> dict[str, Any]:
    files = [
        {"split": split, "path": f"{configuration.name}/{split}-*"}
        for split in configuration.splits
    ]
    marked = {"default": True} if default else {}
    return {"config_name": configuration.name, "data_files": files, **marked}


def _dataset_info(configuration: Configuration) -> dict[str, Any]:
    files = configuration.files
    splits = [
        {
            "name": split,
            "num_bytes": sum(file.arrow_bytes for file in files if file.split == split),
            "num_examples": rows,
        }
        for split, rows in configuration.splits.items()
    ]
    return {
        "config_name": configuration.name,
        "features": [{"name": c.name, **_yaml_type(c.feature)} for c in configuration.columns],
        "splits": splits,
        "download_size": sum(file.bytes for file in files),
        "dataset_size": sum(file.arrow_bytes for file in files),
    }


def _yaml_type(feature: Mapping[str, Any]) -> dict[str, Any]:
    """A feature as cards write it."""
    match feature:
        case {"_type": "Image"}:
            return {"dtype": "image"}
        case {"_type": "List", "feature": {"dtype": dtype}}:
            return {"list": dtype}
        case {"_type": "Array2D", "shape": shape, "dtype": dtype}:
            return {"dtype": {"array2_d": {"shape": shape, "dtype": dtype}}}
        case _:
            return {"dtype": feature["dtype"]}


def croissant(configurations: Sequence[Configuration]) -> dict[str, Any]:
    """Croissant metadata: every file with its SHA-256, and a record set for each configuration,
    whose records have their split as a field.
    """
    files = [file for configuration in configurations for file in configuration.files]
    return {
        "@context": _CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": "http://mlcommons.org/croissant/1.1",
        "name": _NAME,
        "description": _DESCRIPTION,
        "license": "unknown",
        "version": "1.0.0",
        "distribution": [_file_object(file) for file in files]
        + [_file_set(configuration) for configuration in configurations],
        "recordSet": [_record_set(configuration) for configuration in configurations],
    }


def _file_object(file: ParquetFile) -> dict[str, Any]:
    return {
        "@type": "cr:FileObject",
        "@id": file.name,
        "name": file.name.rpartition("/")[2],
        "contentUrl": file.name,
        "contentSize": f"{file.bytes} B",
        "encodingFormat": "application/x-parquet",
        "sha256": file.sha256,
    }


def _file_set(configuration: Configuration) -> dict[str, Any]:
    return {
        "@type": "cr:FileSet",
        "@id": f"{configuration.name}-files",
        "encodingFormat": "application/x-parquet",
        "includes": f"{configuration.name}/*.parquet",
    }


def _record_set(configuration: Configuration) -> dict[str, Any]:
    name = configuration.name
    files = {"fileSet": {"@id": f"{name}-files"}}
    split = {
        "@type": "cr:Field",
        "@id": f"{name}/split",
        "description": "train, validation or test",
        "dataType": "sc:Text",
        "source": {
            **files,
            "extract": {"fileProperty": "fullpath"},
            "transform": {"regex": f"(?:.*/)?{name}/([a-z]+)-.*"},
        },
    }
    fields = [_field(name, files, column) for column in configuration.columns]
    return {"@type": "cr:RecordSet", "@id": name, "field": [split, *fields]}


def _field(configuration: str, files: Mapping[str, Any], column: Column) -> dict[str, Any]:
    source = {**files, "extract": {"column": column.name}}
    kind: dict[str, Any]
    match column.feature:
        case {"_type": "Image"}:
            kind = {"dataType": "sc:ImageObject"}
            source["transform"] = {"jsonPath": "bytes"}
        case {"_type": "List", "feature": {"dtype": dtype}}:
            kind = {"dataType": _CROISSANT_TYPES[dtype], "isArray": True, "arrayShape": "-1"}
        case {"_type": "Array2D", "shape": shape, "dtype": dtype}:
            lengths = ",".join(map(str, shape))
            kind = {"dataType": _CROISSANT_TYPES[dtype], "isArray": True, "arrayShape": lengths}
        case _:
            kind = {"dataType": _CROISSANT_TYPES[column.feature["dtype"]]}
    return {
        "@type": "cr:Field",
        "@id": f"{configuration}/{column.name}",
        "description": column.description,
        **kind,
        "source": source,
    }


_CONTEXT: dict[str, Any] = {  # the specification's own
    "@language": "en",
    "@vocab": "https://schema.org/",
    "arrayShape": "cr:arrayShape",
    "citeAs": "cr:citeAs",
    "column": "cr:column",
    "conformsTo": "dct:conformsTo",
    "containedIn": "cr:containedIn",
    "cr": "http://mlcommons.org/croissant/",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "dct": "http://purl.org/dc/terms/",
    "description": {"@container": "@language"},
    "equivalentProperty": "cr:equivalentProperty",
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "extract": "cr:extract",
    "field": "cr:field",
    "fileObject": "cr:fileObject",
    "fileProperty": "cr:fileProperty",
    "fileSet": "cr:fileSet",
    "format": "cr:format",
    "includes": "cr:includes",
    "isArray": "cr:isArray",
    "isLiveDataset": "cr:isLiveDataset",
    "jsonPath": "cr:jsonPath",
    "key": "cr:key",
    "md5": "cr:md5",
    "name": {"@container": "@language"},
    "parentField": "cr:parentField",
    "path": "cr:path",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "recordSet": "cr:recordSet",
    "references": "cr:references",
    "regex": "cr:regex",
    "repeated": "cr:repeated",
    "replace": "cr:replace",
    "samplingRate": "cr:samplingRate",
    "sc": "https://schema.org/",
    "separator": "cr:separator",
    "source": "cr:source",
    "subField": "cr:subField",
    "transform": "cr:transform",
}
