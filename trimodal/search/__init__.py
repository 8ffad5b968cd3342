"""The trained model as a tool: encode, index a folder of videos, search it, serve it, export it.

It needs a trained model but no pipeline. Code for users of a model belongs here.
"""
