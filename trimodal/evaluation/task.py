"""What the kinds of test sets share: inputs, the model, the folder of results."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch

from trimodal.core.files import check_writable, write_json
from trimodal.core.fingerprint import code_fingerprint, file_fingerprint, fingerprint
from trimodal.core.machine import MachineConfig
from trimodal.core.text import Vocabulary
from trimodal.data.clip_index import ClipTable, read_index
from trimodal.data.shard_files import ReadShard, open_shards
from trimodal.evaluation.config import EvaluateConfig
from trimodal.evaluation.results import AUDIT, EMBEDDINGS, RESULTS
from trimodal.models.checkpoint import Checkpoint, load_model
from trimodal.models.networks import TrimodalNet
from trimodal.training.distributed import World
from trimodal.training.leaks import LeaksConfig

# What embeds, and what files are read with.
_EMBEDDING_CODE = (
    "trimodal.evaluation.embedding", "trimodal.media.image", "trimodal.media.audio_windows",
)  # fmt: skip
T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """What ``evaluate`` reads beside the test set: the model's folder; the folders of clip shards,
    training captions and image shards, ``av`` and ``images`` also at URLs; the demo's ground truth,
    if any.
    """

    model: Path
    av: Path
    captions: Path
    images: Path
    world: Path


@dataclass(frozen=True, kw_only=True)
class Task:
    """The evaluation of the test set ``name``; its results go to the folder ``out``."""

    name: str
    config: EvaluateConfig
    leaks: LeaksConfig
    machine: MachineConfig
    inputs: Inputs
    out: Path
    checkpoint: Checkpoint
    vocabulary: Vocabulary | None
    world: World

    def remove_results(self) -> None:
        """Removes an earlier run's results, but not its embeddings, which say what they are of.
        Raises OSError if none can be written.
        """
        check_writable(self.out / EMBEDDINGS)
        for name in RESULTS:
            (self.out / name).unlink(missing_ok=True)
            check_writable(self.out / name)

    def network(self) -> TrimodalNet:
        """The trained networks."""
        return load_model(self.inputs.model, self.checkpoint, self.vocabulary)

    def clips(self) -> ClipTable:
        """The clips of the test shards."""
        return read_index(self.inputs.av, "test", self.checkpoint.mel)

    def open_shards(self, clips: ClipTable) -> ReadShard:
        """Reads from the clips' shards."""
        return open_shards(
            clips.fingerprints,
            self.machine.shard_cache,
            local_rank=self.world.local_rank,
            local_size=self.world.local_size,
        )

    def identity(self, **content: Any) -> str:
        """Identifies embeddings by ``content``, what they are of, the model and the code."""
        shared = {
            "model": asdict(self.checkpoint),
            "renormalise": self.config.renormalise,
            "code": code_fingerprint(*_EMBEDDING_CODE),
        }
        return fingerprint(shared | content)

    def on_all_ranks(self, cached: T | None) -> T | None:
        """``cached`` if no rank lacks it: all embed together or none does."""
        has_it = torch.tensor([cached is not None], dtype=torch.int64, device=self.world.device)
        together = int(self.world.all_reduce_sum(has_it).item()) == self.world.size
        return cached if together else None

    def provenance(self) -> dict[str, Any]:
        """The first entries of the audit."""
        test_set = self.config.sets[self.name]
        return {
            "kind": test_set.kind,
            "margin_mode": self.checkpoint.loss["margin_mode"],
            "epoch": self.checkpoint.epoch,
            "model": self.checkpoint.weights,
        }

    def write_audit(self, *parts: Mapping[str, Any]) -> None:
        """Writes provenance and ``parts`` to audit.json."""
        content = self.provenance()
        for part in parts:
            content |= part
        write_json(self.out / AUDIT, content)


def data_fingerprint(av_dir: Path) -> str:
    """Identifies the clip shards by their index."""
    return file_fingerprint(av_dir / "index.parquet")


def counted(left_out: Counter[str]) -> dict[str, Any]:
    """Entry ``left_out`` of the audit."""
    return {"left_out": dict(sorted((+left_out).items()))}
