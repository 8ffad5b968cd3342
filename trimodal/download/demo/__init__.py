"""The demo's rendered world: a "mini-VGGSound" of drawn and synthesised clips, made from a seed.

It knows the truth about every clip, so that an oracle's score can stand beside the model's.
"""
