"""All stages in this process with Python's audit events written down; tests/test_watched_stages.py
starts it: ``watched_stages.py FOLDER EVENTS``.

The demo's stages in ``FOLDER``, then ``download`` and ``extract`` of a clip from a server on the
loopback address, in ``FOLDER/youtube``. ``EVENTS`` gets a JSON list of [event, arguments, the
innermost frames]. Files that compiled libraries open raise no event.
"""

import json
import os
import shlex
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
EVENTS: list[tuple[str, list[str], list[str]]] = []
# What changes files, starts programs, or makes objects of a pickle's choice.
KEPT = (
    "os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.link", "os.symlink", "os.truncate",
    "os.chmod", "os.chown", "shutil.rmtree",
    "os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.fork", "os.forkpty", "os.startfile",
    "pty.spawn", "pickle.find_class",
)  # fmt: skip
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


def note(event: str, arguments: tuple[Any, ...]) -> None:
    """Takes the events that matter; it must not raise, nor open anything."""
    if event == "open":
        path, mode, flags = arguments
        if not isinstance(path, int) and flags & WRITING:
            keep(event, [path, mode, flags])
    elif event == "subprocess.Popen":
        keep(event, [arguments[0], *arguments[1]])
    elif event in KEPT and not within_a_folder(event, arguments):
        keep(event, [*arguments])


def within_a_folder(event: str, arguments: tuple[Any, ...]) -> bool:
    """Whether a name lies in an open folder: shutil.rmtree's, which is an event of its own."""
    return event in ("os.remove", "os.rmdir") and arguments[1] >= 0


def keep(event: str, arguments: list[Any]) -> None:
    texts = [os.fsdecode(a) if isinstance(a, bytes | os.PathLike) else str(a) for a in arguments]
    frames, frame = [], sys._getframe(2)
    while frame and len(frames) < 12:
        frames.append(f"{frame.f_code.co_filename}:{frame.f_code.co_name}")
        frame = frame.f_back
    EVENTS.append((event, texts, frames))


def run_stages(*names: str) -> None:
    """Runs stages by their commands in dvc.yaml, in this process, the workers' share too."""
    from importlib import import_module

    import yaml

    from trimodal.parallel import pool as workers

    workers.map_in_order = lambda work, jobs, *_, **__: map(work, jobs)
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
    for name in names or stages:
        command = stages[name].get("do", stages[name])["cmd"].replace("${key}", "msrvtt")
        python, dash_m, module, *sys.argv[1:] = shlex.split(command)
        assert (python, dash_m) == ("python", "-m")
        import_module(module).main()


def youtube(server: Any) -> None:
    """Fetches what ``params.yaml`` there asks for, from the server's port."""
    params = Path("params.yaml")
    params.write_text(params.read_text().replace("PORT", str(server.server_port)))
    run_stages("download", "extract")


def main() -> None:
    folder, events = Path(sys.argv[1]).resolve(), Path(sys.argv[2]).resolve()
    sys.path.insert(0, str(ROOT))
    sys.addaudithook(note)
    os.chdir(folder)
    run_stages()
    from video_server import running  # beside this file

    os.chdir(folder / "youtube")
    with running(folder / "youtube" / "served") as server:
        youtube(server)
    found = list(EVENTS)
    events.write_text(json.dumps(found))


if __name__ == "__main__":
    main()
