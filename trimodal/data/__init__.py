"""Shards as training and evaluation read them: WebDataset pipelines for any program
(:mod:`trimodal.data.pipelines`), samples read by index, and the export of pairs as Parquet files
(:mod:`trimodal.data.export_pairs`).
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trimodal.data.pipelines import captioned as captioned
    from trimodal.data.pipelines import pairs as pairs

__all__ = ["captioned", "pairs"]


def __getattr__(name: str) -> Any:
    """On demand, since reading by index does not need webdataset."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from trimodal.data import pipelines

    return getattr(pipelines, name)
