"""The tiny DINO."""
