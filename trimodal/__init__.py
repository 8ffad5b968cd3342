"""One embedding space for images, sounds and captions, learned with the image as mediator."""
