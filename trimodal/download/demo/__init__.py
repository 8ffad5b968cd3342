"""The demo's rendered world: a "mini-VGGSound" of drawn and synthesised clips, made from a seed.

The ground truth of every clip is known, so an oracle's score can be reported beside the model's.
"""
