"""Stage ``features``: what frozen towers make of pictures and captions, computed once for training.

``stage`` is the stage, ``frozen`` the towers, ``compute`` what a worker makes, ``store`` what
training reads. Code belongs here if it makes or reads stored features.
"""
