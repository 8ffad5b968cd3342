"""The ways to clips: render a world, take files that one has, ask YouTube."""
