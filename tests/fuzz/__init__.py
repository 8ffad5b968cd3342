"""A coverage-guided fuzz run of the readers of text formats: ``python -m tests.fuzz``."""

import sys
from pathlib import Path

# The fixtures of the tests stand beside this package.
sys.path.insert(0, str(Path(__file__).parents[1]))
