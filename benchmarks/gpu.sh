#!/usr/bin/env bash
# Under five minutes of a GPU: training steps in every precision and layout, compiled, from pinned
# memory and in DistributedDataParallel; writes the GPU table of docs/benchmarks.md. Needs the
# project's packages (or its folder on PYTHONPATH beside PyTorch's); options as of benchmarks/gpu.py.
set -euo pipefail
cd "$(dirname "$0")/.."
exec "${PYTHON:-python3}" -m benchmarks.gpu --write "$@"
