"""Bad inputs, made by code, and the outcome that each must have: ``python -m tests.rubbish``."""

import sys
from pathlib import Path

# The fixtures of the tests stand beside this package.
sys.path.insert(0, str(Path(__file__).parents[1]))
