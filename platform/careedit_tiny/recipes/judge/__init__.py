"""The tiny judge."""
