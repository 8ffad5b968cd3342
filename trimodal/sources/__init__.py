"""Readers of the official annotation files, one file a data set: text in, checked records out."""
