"""A pretended GPU: tensors that claim to be on "cuda" and compute on the CPU, with CUDA's rules for mixing devices.

Code that runs inside `pretended_gpu` fails where it would fail on a GPU because two tensors are on different devices: it mixes
a tensor of the GPU with one of the CPU that has dimensions, gives a generator of the CPU to a factory for the GPU, or reads a
tensor of the GPU through NumPy. Everything else gives the bits of the CPU.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Self

import pytest
import torch
from diffusers import ModelMixin
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_flatten, tree_map
from transformers import PreTrainedModel

GPU = torch.device("cuda", 0)
_INDEXING = ("index", "index_put", "index_put_", "_index_put_impl_", "_unsafe_index", "_unsafe_index_put")
"""Operations that take indices of the CPU into a tensor of the GPU."""
_COPYING = ("copy_", "_to_copy", "_foreach_copy_")
"""Operations that carry values from one device to the other."""


class Remote(Tensor):
    """A tensor that says it is on the GPU. `plain` is the tensor of the CPU that has its values."""

    plain: Tensor

    @staticmethod
    def __new__(cls, plain: Tensor) -> Self:
        """Wrap a tensor of the CPU."""
        made = Tensor._make_wrapper_subclass(
            cls, plain.shape, strides=plain.stride(), storage_offset=plain.storage_offset(), dtype=plain.dtype,
            device="meta",  # torch guards a real device's kernels, and this machine may have none
        )  # fmt: skip
        made.plain = plain
        return made

    @property
    def device(self) -> torch.device:
        """The pretended device."""
        return GPU

    def __getitem__(self, index: Any) -> Any:
        """A part. torch makes a tensor of a list of indices where the pretence does not see it, so it is made here."""
        parts = index if isinstance(index, tuple) else (index,)
        return super().__getitem__(tuple(torch.tensor(part) if isinstance(part, list) else part for part in parts))

    def tolist(self) -> Any:
        """The values as numbers."""
        return self.plain.tolist()

    def numpy(self, *, force: bool = False) -> Any:
        """Refused, as by CUDA."""
        raise TypeError("A tensor of cuda has no NumPy array; call cpu() first.")

    def __reduce_ex__(self, protocol: Any) -> Any:
        """A saved tensor is read back on the CPU."""
        return self.plain.__reduce_ex__(protocol)

    @classmethod
    def __torch_dispatch__(cls, operation: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Compute on the CPU; the result is on the GPU again."""
        return _run(operation, args, kwargs or {})


class _Factories(TorchDispatchMode):
    """Makes the tensors that are asked for on the GPU."""

    def __torch_dispatch__(self, operation: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(operation, args, kwargs or {})


def _run(operation: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    name = operation._schema.name.removeprefix("aten::")
    tensors = [value for value in tree_flatten((args, kwargs))[0] if isinstance(value, Tensor)]
    remote = any(isinstance(value, Remote) for value in tensors)
    local = [value for value in tensors if not isinstance(value, Remote) and value.ndim]
    # Of an index operation only the indices, the second argument, may be on the CPU.
    indexing = name in _INDEXING and all(isinstance(value, Remote) for value in (args[0], *args[2:3]))
    if remote and local and name not in _COPYING and not indexing:
        raise RuntimeError(f"{name} mixes tensors of cuda and of the CPU: {[tuple(v.shape) for v in local]}.")
    wanted = None if kwargs.get("device") is None else torch.device(kwargs["device"]).type
    if wanted is not None:
        remote = wanted != "cpu"  # autograd sees pretended tensors on "meta", and makes their gradients there
        kwargs = {**kwargs, "device": torch.device("cpu")}
    generator = kwargs.get("generator")
    if remote and generator is not None and generator.device.type == "cpu":
        raise RuntimeError(f"{name} on cuda takes a generator of cuda, not of the CPU.")
    kwargs.pop("pin_memory", None)
    plain = tree_map(lambda value: value.plain if isinstance(value, Remote) else value, (args, kwargs))
    result = operation(*plain[0], **plain[1])
    if name.endswith("_") and args and isinstance(args[0], Tensor):
        return args[0]
    if not remote or name == "_local_scalar_dense":
        return result
    return tree_map(lambda value: Remote(value) if isinstance(value, Tensor) else value, result)


def _loaded_on_the_cpu(kind: Any) -> Any:
    """The loader of a class of models without the pretence: it makes its models on "meta" first."""
    load = kind.from_pretrained.__func__

    def from_pretrained(cls: Any, *args: Any, **kwargs: Any) -> Any:
        with _disable_current_modes():
            return load(cls, *args, **kwargs)

    return classmethod(from_pretrained)


@contextmanager
def pretended_gpu() -> Iterator[torch.device]:
    """The device "cuda:0", pretended inside this context."""
    # The fused attention kernels of the two devices are different operations; the plain one is the same.
    with pytest.MonkeyPatch.context() as patch, _Factories(), sdpa_kernel(SDPBackend.MATH):
        if not torch.cuda.is_available():
            patch.setattr(torch.cuda, "_lazy_init", lambda: None)
        # `torch.tensor` makes its values on the CPU and then carries them over, where the pretence sees it.
        torch._C._set_only_lift_cpu_tensors(True)
        for kind in (ModelMixin, PreTrainedModel):
            patch.setattr(kind, "from_pretrained", _loaded_on_the_cpu(kind))
        try:
            yield GPU
        finally:
            torch._C._set_only_lift_cpu_tensors(False)
