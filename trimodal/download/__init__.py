"""Stage ``download``: annotations to clips on disk and a manifest with an outcome for each clip.

The ways to clips are modules of their own: the demo's rendered world, local files, YouTube. A new
way to get clips comes in here.
"""
