"""Encoders of pictures and text in one space: what the learned router reads, and metrics compare."""

from careedit.encoders.openclip import DEFAULT_MODEL, DEFAULT_PRETRAINED, OpenClipEncoder, load_encoder

__all__ = ["DEFAULT_MODEL", "DEFAULT_PRETRAINED", "OpenClipEncoder", "load_encoder"]
