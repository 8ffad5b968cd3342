"""The trained model as a tool: encode, index a folder of videos, search it, serve it, export it.

It needs a trained model and no pipeline. What comes in is for users of a model.
"""
