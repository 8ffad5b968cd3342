"""Zero-shot retrieval on test videos (paper.md, Evaluation): embeddings, metrics, audit."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import batched
