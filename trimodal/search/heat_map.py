"""Where in a moment's frame it sounds, as an image that the page lays over its thumbnail."""

import torch

from trimodal.media import heat_map
from trimodal.models.preprocessing import centre_crop_shares, centre_views, decode_jpeg
from trimodal.models.sound_map import place_embeddings, similarity_map
from trimodal.search.encoder import EmbeddingMatrix, Encoder


def heat_map_png(encoder: Encoder, frame: bytes, sound: EmbeddingMatrix) -> bytes:
    """A PNG with transparency of the frame's size, opaque and red where the frame is most similar
    to ``sound``, an embedding (dim,) of audio or of a sentence. ``frame`` is a JPEG of the size
    used in training, as a store's thumbnails are. Raises TowerError if the model's image network
    has no map of its features.
    """
    pixels, augment = decode_jpeg(frame), encoder.checkpoint.augment
    views = centre_views([pixels], augment).to(encoder.device)
    with torch.inference_mode():
        places = place_embeddings(encoder.networks, views)
        values = similarity_map(places, torch.from_numpy(sound)[None].to(encoder.device))[0]
    height, width = pixels.shape[1:]
    return heat_map.heat_map_png(values, height, width, centre_crop_shares(width, augment))
