"""Generated bad inputs and their expected outcomes: ``python -m tests.rubbish``."""

import sys
from pathlib import Path

# The test fixtures are next to this package.
sys.path.insert(0, str(Path(__file__).parents[1]))
