"""A rendered world of things that are seen and heard, in the shapes of the real data sets."""
