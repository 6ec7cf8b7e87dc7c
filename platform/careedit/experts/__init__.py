"""Experts: LoRA adapters with manifests, in hashed sets, applied merged or shared.

Names are imported when they are first used, so that reading a set's manifests needs no torch. `__init__.pyi` lists them.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
