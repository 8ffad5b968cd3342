"""Stage ``train``: data sets, batches, the training step, epochs, several processes, resuming.

``train`` is the stage, ``loop`` the epochs, ``trainer`` one step. Code belongs here if training
alone uses it, or training and evaluation do (readers of shards, leaks, distributed).
"""

from trimodal.core.extras import require

require("pipeline")
