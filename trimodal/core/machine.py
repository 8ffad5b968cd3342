"""Section ``machine``: settings that affect speed, not results."""

from typing import Annotated, Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt
from pydantic.dataclasses import dataclass

from trimodal.core.config import SECTION

Device = Literal["auto", "cpu", "cuda"]
Devices = PositiveInt | Literal["all"]


@dataclass(frozen=True, kw_only=True, config=SECTION)
class YoutubeAccess:
    """Section ``machine.youtube``: access to YouTube. Each of ``workers`` waits once to
    twice ``pause_seconds`` before a clip; a clip is retried ``retries`` times, with waits that
    double from ``backoff_seconds``. No data for ``stall_seconds``, or more than
    ``clip_timeout_seconds`` for a clip, counts as a network failure. ``stop_after`` consecutive
    network failures stop the stage; a bot check or a rate limit stops it at once.
    ``cookies_file`` is in Netscape's format; ``js_runtime`` is the JavaScript runtime with which
    yt-dlp runs YouTube's player.
    """

    workers: PositiveInt
    pause_seconds: NonNegativeFloat
    retries: NonNegativeInt
    backoff_seconds: NonNegativeFloat
    stall_seconds: PositiveFloat
    clip_timeout_seconds: PositiveFloat
    stop_after: PositiveInt
    cookies_file: str
    js_runtime: Literal["deno", "node", "bun", "quickjs"]


@dataclass(frozen=True, kw_only=True, config=SECTION)
class ShardCacheConfig:
    """Section ``machine.shard_cache``: where shards at URLs are kept for training and evaluation
    (:class:`trimodal.data.shard_files.ShardCache`), at most ``max_gb`` (10^9 bytes) of them.
    """

    folder: str
    max_gb: PositiveFloat


@dataclass(frozen=True, kw_only=True, config=SECTION)
class MachineConfig:
    """Section ``machine``, which no stage tracks.

    Download, extract and captions run in ``workers`` processes of this machine (``executor:
    local``) or on all cores of a Ray cluster (``ray``), whose head is at ``ray_address``
    (``host:port``; empty: the cluster that this machine is part of). With ``shared_folder`` its
    nodes see this repository at the same path; otherwise all media and shards must be at URLs
    (:mod:`trimodal.core.storage`). A clip whose audio or frames take longer than
    ``clip_timeout_seconds`` is left out and retried by the next run.

    Training and evaluation run on ``device``, in ``devices`` processes, one per device
    (``all``: one for each GPU), which share every batch. ``loader_workers`` processes prefetch each
    stream. A training run is saved every ``checkpoint_every_steps``, so that a killed run can
    resume.
    """

    executor: Literal["local", "ray"]
    ray_address: str
    shared_folder: bool
    workers: PositiveInt
    clip_timeout_seconds: Annotated[float, Field(gt=0)]
    device: Device
    devices: Devices
    loader_workers: NonNegativeInt
    checkpoint_every_steps: PositiveInt
    shard_cache: ShardCacheConfig
    youtube: YoutubeAccess
