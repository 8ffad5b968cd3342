"""One target under libFuzzer: ``python -m tests.fuzz.worker TARGET CORPUS [OPTIONS]``."""

import sys
import tempfile
from pathlib import Path

import atheris

_MEMORY = Path("/dev/shm")  # noqa: S108 - a file system in memory, where there is one


def main() -> None:
    name, *options = sys.argv[1:]
    with atheris.instrument_imports(include=["trimodal", "tests.fuzz", "csv", "json", "yaml"]):
        from tests.fuzz.targets import TARGETS, execute
    target = TARGETS[name]
    with tempfile.TemporaryDirectory(dir=_MEMORY if _MEMORY.is_dir() else None) as folder:
        target.prepare(Path(folder))

        def run(content: bytes) -> None:
            execute(target, Path(folder), content)

        atheris.Setup([sys.argv[0], *options], run)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
