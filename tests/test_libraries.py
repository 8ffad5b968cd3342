"""The libraries that do the work are loaded, by the stage that should use them, when it runs; and
ffmpeg-python composes every command line of ffmpeg.
"""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import ffmpeg
import numpy as np
import pytest
from configs import MACHINE, config_for_tests
from training_fixtures import caption_sources

from trimodal.media import container
from trimodal.media.mel import MelConfig

ROOT = Path(__file__).parents[1]
# What each stage does, in a Python of its own: `folder` has the data, `arguments` are JSON.
WORK = {
    "captions": """
from trimodal.core.config import parse_section
from trimodal.core.machine import MachineConfig
from trimodal.preprocess.captions import CaptionsConfig, prepare_captions
config = parse_section(arguments["captions"], "captions", CaptionsConfig)
machine = parse_section(arguments["machine"], "machine", MachineConfig)
prepare_captions(config, folder / "captions", folder / "images", machine)
""",
    "extract": """
import numpy as np
from trimodal.core.config import parse_section
from trimodal.core.shard_writer import Sample
from trimodal.media.mel import MelConfig
from trimodal.preprocess.clip_shards import log_mel, write_shard
mel = parse_section(arguments["mel"], "mel", MelConfig)
codes = log_mel([np.zeros(16_000, np.float32)], mel).codes
write_shard(folder / "a.tar", [Sample(key="a", members={"mel.npy": codes.tobytes()})])
""",
    "samples": """
import numpy as np
from trimodal.core.config import parse_section
from trimodal.media.mel import MelConfig
from trimodal.media.windows import AudioFrontEnd, WindowConfig
from trimodal.media.audio_windows import Waveform
front_end = AudioFrontEnd(
    mel=parse_section(arguments["mel"], "mel", MelConfig),
    window=WindowConfig(seconds=3.0, decibel="power"),
)
Waveform(np.zeros(44_100), 44_100).windows(front_end)
""",
}
# Stage -> modules that its work must have loaded.
LOADED = [
    ("captions", "nltk.tokenize.regexp"),
    ("captions", "nltk.corpus.reader.wordlist"),
    ("captions", "gensim.models.keyedvectors"),
    ("captions", "pyarrow.parquet"),
    ("captions", "webdataset.writer"),
    ("extract", "torchaudio.transforms"),
    ("extract", "webdataset.writer"),
    ("samples", "librosa"),
]


# Does each stage's work in a process forked from one that has PyTorch loaded and none of these.
WORK_IN_FORKS = """
import json, os, sys, traceback
from pathlib import Path
import torch
folder, arguments, works = Path(sys.argv[1]), json.loads(sys.argv[2]), json.loads(sys.argv[3])
before = set(sys.modules)
for stage, work in works.items():
    if child := os.fork():
        os.waitpid(child, 0)
        continue
    try:
        exec(work)
        print(stage, *sorted(set(sys.modules) - before), flush=True)
    except BaseException:
        traceback.print_exc()
    os._exit(0)
"""


def test_stages_load_the_libraries_that_do_their_work(tmp_path: Path) -> None:
    arguments = {
        "captions": asdict(caption_sources(tmp_path)),
        "machine": asdict(MACHINE),
        "mel": asdict(config_for_tests(MelConfig)),
    }
    given = [str(tmp_path), json.dumps(arguments), json.dumps(WORK)]
    command = [sys.executable, "-c", WORK_IN_FORKS, *given]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    loaded = {line.split()[0]: set(line.split()) for line in done.stdout.splitlines()}
    assert loaded.keys() == WORK.keys(), done.stderr
    assert [pair for pair in LOADED if pair[1] not in loaded[pair[0]]] == []


def _cut(path: Path) -> None:
    stream = container.RemoteStream(url="http://127.0.0.1:9/none", headers={})
    with pytest.raises(container.SectionError):
        container.cut_section(
            [stream], path, start_seconds=0, seconds=1, crf=20, audio_kbps=64, stall_seconds=5,
            timeout_seconds=20,
        )  # fmt: skip


def _encode(path: Path) -> None:
    frame, tone = np.zeros((16, 16, 3), np.uint8), np.zeros(8000, np.float32)
    container.encode_video(path, [frame], fps=1, audio=tone, audio_rate_hz=8000)


@pytest.mark.parametrize(
    "work",
    [
        _encode,
        _cut,
        lambda _: container.missing_encoders(),
        lambda _: container.missing_media_tools.__wrapped__(),
    ],
)
def test_ffmpeg_python_composes_the_commands(
    work: Callable[[Path], object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    composed: list[list[str]] = []
    started: list[list[str]] = []
    compile_command, run = ffmpeg.compile, subprocess.run

    def composing(*args: Any, **kwargs: Any) -> list[str]:
        composed.append(compile_command(*args, **kwargs))
        return list(composed[-1])

    def running(command: list[str], **kwargs: Any) -> "subprocess.CompletedProcess[bytes]":
        started.append(command)
        return run(command, **kwargs)

    monkeypatch.setattr(container.ffmpeg, "compile", composing)
    monkeypatch.setattr(container.subprocess, "run", running)
    work(tmp_path / "clip.mp4")
    assert started
    extra = {"-hide_banner", "-loglevel", "error", "-nostdin"}
    assert [[word for word in command if word not in extra] for command in started] == composed


def _named(folder: str) -> Iterator[str]:
    for path in sorted((ROOT / folder).rglob("*.py")):
        for line in path.read_text(encoding="utf-8").splitlines():
            if "ffmpeg_executable()" in line and not line.startswith("def "):
                yield f"{path.relative_to(ROOT)}: {line.strip()}"


def test_no_other_place_starts_ffmpeg() -> None:
    """yt-dlp is only told where it is."""
    assert [*_named("trimodal"), *_named("benchmarks")] == [
        'trimodal/download/youtube.py: "ffmpeg_location": ffmpeg_executable(),',
        "trimodal/media/container.py: command = ffmpeg.compile(stream, cmd=ffmpeg_executable())",
        "benchmarks/measuring.py: command = ffmpeg.compile(output, cmd=ffmpeg_executable(), "
        "overwrite_output=True)",
    ]


def test_a_missing_encoder_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    compile_command = ffmpeg.compile

    def without_aac(*args: Any, **kwargs: Any) -> list[str]:
        command = compile_command(*args, **kwargs)
        return ["no_such_encoder" if word == "aac" else word for word in command]

    assert container.missing_encoders() == []
    monkeypatch.setattr(container.ffmpeg, "compile", without_aac)
    assert container.missing_encoders() == ["aac"]


def test_an_ffmpeg_that_fails_is_no_working_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "ffmpeg").write_text("#!/bin/sh\necho no library >&2\nexit 1\n")
    (tmp_path / "ffmpeg").chmod(0o755)
    monkeypatch.setattr(container, "ffmpeg_executable", lambda: str(tmp_path / "ffmpeg"))
    assert container.missing_media_tools.__wrapped__() == "has no working ffmpeg: no library"
    monkeypatch.setattr(container, "ffmpeg_executable", lambda: "/no/such/ffmpeg")
    assert "No such file" in container.missing_media_tools.__wrapped__()
