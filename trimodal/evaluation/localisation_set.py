"""Params of a test set of kind ``localisation``."""

from typing import Literal

from pydantic.dataclasses import dataclass as section_dataclass

from trimodal.core.config import SECTION

Annotations = Literal["demo", "vggss", "flickr_soundnet"]


@section_dataclass(frozen=True, kw_only=True, config=SECTION)
class LocalisationSet:
    """Pictures, their sound and boxes around what sounds. ``path`` by ``annotations``:

    - ``demo``: truth.parquet, of clips of the test shards;
    - ``vggss``: vggss.json, of clips of the test shards; or a folder with vggss.json, ``frames``
      and ``audio``;
    - ``flickr_soundnet``: a folder with ``Annotations``, ``frames`` and ``audio``.
    """

    kind: Literal["localisation"]
    path: str
    annotations: Annotations
