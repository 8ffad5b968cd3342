"""Experiments on real media: Flickr8k's captions, and 60 clips with audio."""
