"""``python -m tests.fuzz --seconds 600 [--only NAME ...] [--out figures.json]``: all targets share
the time, each in a process of its own. Exit code 1, and the input kept, where one breaks.
"""

import argparse
import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from tests.fuzz.targets import TARGETS

_MOST_BYTES = 8192
_MOST_SECONDS_AN_INPUT = 20
_MOST_MEGABYTES = 3000  # PyTorch, which a checkpoint's reader imports, takes a part of it


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=int, default=600, help="for all targets together")
    parser.add_argument("--only", nargs="+", choices=TARGETS, default=list(TARGETS))
    parser.add_argument("--out", type=Path, help="a JSON file for the figures")
    parser.add_argument("--kept", type=Path, default=Path("fuzz-crashes"), help="for bad inputs")
    options = parser.parse_args()
    share = max(1, options.seconds // len(options.only))
    print(f"{'target':<24} {'executions':>10} {'a second':>9} {'edges':>6} {'inputs':>6}  crashes")
    figures = {}
    for name in options.only:
        figures[name] = row = fuzz(name, share, options.kept)
        print(
            f"{name:<24} {row['executions']:>10} {row['executions_per_second']:>9} "
            f"{row['edges']:>6} {row['corpus']:>6}  {', '.join(row['crashes']) or 'none'}",
            flush=True,
        )
    total = sum(row["executions"] for row in figures.values())
    crashes = sum(len(row["crashes"]) for row in figures.values())
    print(f"{total} executions in {share * len(figures)} s, {crashes} crashes")
    if options.out:
        content = {"seconds": share * len(figures), "executions": total, "targets": figures}
        options.out.write_text(json.dumps(content, indent=2) + "\n")
    return 1 if crashes else 0


def fuzz(name: str, seconds: int, kept: Path) -> dict[str, Any]:
    """Fuzzes one target from its seeds; the first input that breaks ends it and stays in ``kept``.

    Raises RuntimeError where the fuzzer itself does not run.
    """
    kept.mkdir(exist_ok=True)
    before = set(kept.iterdir())
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        (corpus := folder / "corpus").mkdir()
        for number, seed in enumerate(TARGETS[name].seeds(folder)):
            if len(seed) > _MOST_BYTES:  # libFuzzer would cut it
                raise RuntimeError(f"{name}: a seed of {len(seed)} bytes")
            (corpus / f"seed{number}").write_bytes(seed)
        tokens = ["".join(f"\\x{byte:02x}" for byte in word) for word in TARGETS[name].words]
        (folder / "words").write_text("".join(f'"{token}"\n' for token in tokens))
        command = [
            sys.executable, "-m", "tests.fuzz.worker", name, str(corpus),
            f"-max_total_time={seconds}", f"-max_len={_MOST_BYTES}", "-print_final_stats=1",
            f"-timeout={_MOST_SECONDS_AN_INPUT}", f"-rss_limit_mb={_MOST_MEGABYTES}", "-seed=1",
            f"-artifact_prefix={kept}/{name}-",
            *([f"-dict={folder}/words"] if tokens else []),
        ]  # fmt: skip
        done = subprocess.run(
            command, capture_output=True, text=True, errors="replace", check=False
        )
    crashes = sorted(str(path) for path in set(kept.iterdir()) - before)
    ends = re.findall(r"^#(\d+)\s.* cov: (\d+) .* corp: (\d+)/", done.stderr, re.MULTILINE)
    counts = re.findall(r"stat::number_of_executed_units: (\d+)", done.stderr)
    if crashes:
        print((done.stdout + done.stderr)[-4000:], file=sys.stderr)
    elif done.returncode or not ends:
        raise RuntimeError(
            f"{name}: the fuzzer ended with {done.returncode}: {done.stderr[-3000:]}"
        )
    if not any(kept.iterdir()):
        kept.rmdir()
    executions = int(counts[-1]) if counts else int(ends[-1][0])
    return {
        "executions": executions,
        "executions_per_second": executions // seconds,
        "edges": int(ends[-1][1]) if ends else 0,
        "corpus": int(ends[-1][2]) if ends else 0,
        "crashes": crashes,
    }


if __name__ == "__main__":
    sys.exit(main())
