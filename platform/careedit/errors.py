"""Every error that careedit raises on purpose, in one tree.

    CareEditError
    ├── InputError            the caller's picture, text or number is wrong      (CLI exit 2, HTTP 4xx)
    │   ├── ImageError            a picture that cannot or may not be decoded
    │   ├── MaskError             a mask that does not fit its picture
    │   └── UnknownExpertError    an expert that the set does not have
    ├── ExpertError           an expert, an adapter file or an expert set is not usable   (CLI exit 2)
    │   ├── ManifestError         a YAML file that breaks its schema
    │   ├── AdapterError          an adapter file that is damaged, unsafe or not the stated one
    │   └── BaseMismatchError     an adapter that was made for another base model
    ├── ReplayError           a trace that cannot be replayed with what is at hand
    └── CancelledError        the edit was cancelled between two steps

A message is one sentence that says what is wrong and what to do. No error here derives from `ValueError`, so one that is
raised inside a pydantic validator reaches the caller unchanged, not wrapped in a validation report.
"""


class CareEditError(Exception):
    """Root of the tree: catch this to catch everything careedit raises on purpose."""

    field: str | None
    """Name of the record's attribute or request field that is wrong, e.g. "guidance". None: the error is not about a single
    field. It is for programs: the HTTP API answers it as `param`. It survives pickling, so it crosses process boundaries."""

    # An attribute of the instance, never of a class: Ray's wrapper inherits from the class and asks the error it wraps only
    # for what the class lacks.
    def __init__(self, message: str, *, field: str | None = None) -> None:
        super().__init__(message)
        self.field = field


class InputError(CareEditError):
    """What the caller gave is wrong."""


class ImageError(InputError):
    """A picture that cannot or may not be decoded."""

    def __init__(self, message: str, *, field: str | None = "image") -> None:
        super().__init__(message, field=field)


class MaskError(InputError):
    """A mask that does not fit its picture."""

    def __init__(self, message: str, *, field: str | None = "mask") -> None:
        super().__init__(message, field=field)


class UnknownExpertError(InputError):
    """An expert that the expert set does not have."""

    def __init__(self, message: str, *, field: str | None = "expert") -> None:
        super().__init__(message, field=field)


class ExpertError(CareEditError):
    """An expert, an adapter file or an expert set is not usable."""


class ManifestError(ExpertError):
    """A manifest file that breaks its schema."""


class AdapterError(ExpertError):
    """An adapter file that is damaged, unsafe or not the one its manifest states."""


class BaseMismatchError(ExpertError):
    """An adapter that was made for another base model."""


class ReplayError(CareEditError):
    """A trace that cannot be replayed with the images or the expert set at hand."""


class CancelledError(CareEditError):
    """The edit was cancelled between two denoising steps."""


def sentence(error: BaseException) -> str:
    """An exception as the error of a row: careedit's own errors by their message, others also by their type."""
    words = " ".join(str(error).split())[:500]
    if isinstance(error, CareEditError) and words:
        return words
    return f"{type(error).__name__}: {words}" if words else type(error).__name__
