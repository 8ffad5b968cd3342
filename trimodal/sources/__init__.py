"""Readers of the data sets' official annotation files: text in, checked records out.

One file a format. A bad row is counted by its reason; what comes in opens no media.
"""
