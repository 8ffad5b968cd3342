"""Section ``machine``: what changes how fast a result comes, and not the result."""

from typing import Annotated, Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt
from pydantic.dataclasses import dataclass

from trimodal.core.config import SECTION

Device = Literal["auto", "cpu", "cuda"]
Devices = PositiveInt | Literal["all"]


@dataclass(frozen=True, kw_only=True, config=SECTION)
class YoutubeAccess:
    """Section ``machine.youtube``: how YouTube is asked. Each of ``workers`` waits
    ``pause_seconds`` to twice that before a clip; a clip is tried again ``retries`` times, the wait
    doubling from ``backoff_seconds``. No data for ``stall_seconds``, or ``clip_timeout_seconds``
    for a clip, counts as a failure of the network. ``stop_after`` such failures in a row stop the
    stage; a bot check or a rate limit does at once. ``cookies_file`` is in Netscape's format;
    ``js_runtime`` is what yt-dlp runs YouTube's player with.
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
class MachineConfig:
    """Section ``machine``, which no stage tracks.

    Download, extract and captions run in ``workers`` processes of this machine (``executor:
    local``) or on all cores of a Ray cluster (``ray``), whose head is at ``ray_address``
    (``host:port``; empty: the cluster that this machine is part of). With ``shared_folder`` its
    nodes see this repository at the same path; without, all media and shards must be at URLs
    (:mod:`trimodal.core.storage`). A clip that takes over ``clip_timeout_seconds``, for its audio
    or for its frames, is left out and tried again by the next run.

    Training and evaluation run on ``device``, in ``devices`` processes, each on a device of its own
    (``all``: one for each GPU), which share every batch. ``loader_workers`` processes read each
    stream ahead. A training run is saved every ``checkpoint_every_steps``, to resume from there if
    it is killed.
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
    youtube: YoutubeAccess
