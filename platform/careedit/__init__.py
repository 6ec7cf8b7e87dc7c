"""careedit: instruction-based image editing with routed LoRA experts.

    from careedit import EditRequest, load_editor

    editor = load_editor("tiny")
    result = editor.edit(EditRequest(image="photo.png", instruction="remove the red circle"))
    result.save("edited.png")

Names are imported when they are first used, so `import careedit` is quick and needs no torch. `__init__.pyi` lists them.
"""

import lazy_loader

__version__ = "1.0.0rc1"

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
