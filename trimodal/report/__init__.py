"""Stage ``report``, comparisons of runs and experiments: the results as people read them.

It reads what ``evaluate`` and ``train`` wrote and runs no network. Modules here compute values;
``templates/`` lays them out as HTML and Markdown.
"""

from trimodal.core.extras import require

require("pipeline")
