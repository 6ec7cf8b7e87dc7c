"""The tiny CLIP."""
