"""Readers of the data sets' official annotation files: text in, checked records out.

One module for each format. Bad rows are counted by reason; nothing here opens media files.
"""
