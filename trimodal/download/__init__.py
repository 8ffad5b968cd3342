"""Stage ``download``: annotations to clips on disk and a manifest with an outcome for each clip.

Each source of clips has its own modules: the demo's rendered world, local files, YouTube. A new
source of clips belongs here.
"""

from trimodal.core.extras import require

require("pipeline")
