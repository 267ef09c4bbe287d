"""A second device where there is none: tensors on it are marked, and what a CUDA device refuses is refused.

The numbers are worked out on the CPU; what is checked is where tensors are. Inside `pretend_cuda()` a tensor that is
made on, or moved to, "cuda" says that it is there, and so does all that is made of it. Mixing it with a tensor of the
CPU (but for single numbers, and places that index it), drawing for it from a generator of the CPU, giving it to NumPy
or its address to our kernels fails, as it does with a GPU. What it cannot show: whether kernels exist there, how fast
they are, and how a GPU rounds.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

CUDA = torch.device("cuda", 0)
MARK = "pretended"
TO_NUMPY = ("numpy", "__array__", "data_ptr")
PLACES = ("__getitem__", "__setitem__", "index_put_")
ACROSS = ("copy_", "type_as", "_has_compatible_shallow_copy_type")


class WrongDeviceError(RuntimeError):
    """What a GPU would have refused."""


def marked(value: object) -> bool:
    return isinstance(value, Tensor) and hasattr(value, MARK)


def _tensors(value: object) -> list[Tensor]:
    """The tensors in lists, tuples and dictionaries, in their order; PyTorch's own walk takes three times as long."""
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, (list, tuple)):
        return [tensor for part in value for tensor in _tensors(part)]
    if isinstance(value, dict):
        return [tensor for part in value.values() for tensor in _tensors(part)]
    return []


def _mark(result: object, on: bool) -> None:
    for tensor in _tensors(result):
        if on:
            setattr(tensor, MARK, True)
        elif hasattr(tensor, MARK):
            delattr(tensor, MARK)


def _wanted(values: Any) -> str | None:
    """The type of device that arguments of `to` name, by a string, a device or another tensor."""
    for value in values:
        if isinstance(value, Tensor):
            return "cuda" if marked(value) else "cpu"
        if isinstance(value, torch.device):
            return value.type
        if isinstance(value, str):
            return torch.device(value).type
    return None


class _PretendCuda(TorchFunctionMode):
    def __torch_function__(
        self, function: Callable[..., Any], types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        name = getattr(function, "__name__", "")
        first = args[0] if args else None
        if name == "__get__" and function == torch.Tensor.device.__get__:  # type: ignore[attr-defined]
            return CUDA if marked(first) else function(*args, **kwargs)
        if name == "__get__" and function == torch.Tensor.is_cuda.__get__:  # type: ignore[attr-defined]
            return marked(first)
        if name == "__iter__":
            return iter(torch.unbind(first))
        if name == "__set__" and len(args) == 2 and isinstance(args[1], Tensor):  # param.data = moved
            function(*args)
            _mark(first, marked(args[1]))
            return None
        if name == "__deepcopy__":  # its other argument holds what was copied before
            copied = function(*args, **kwargs)
            _mark(copied, marked(first))
            return copied
        if name == "__reduce_ex__" and marked(first):  # what is saved lies on no device
            _mark(first, on=False)
            saved = function(*args, **kwargs)
            _mark(first, on=True)
            return saved
        if name in ("to", "cpu", "cuda") and isinstance(first, Tensor):
            return self._moved(name, function, args, kwargs)
        return self._worked_out(name, function, args, kwargs)

    def _moved(self, name: str, function: Callable[..., Any], args: Any, kwargs: dict[str, Any]) -> Tensor:
        first = args[0]
        kind = name if name != "to" else _wanted([*args[1:], *kwargs.values()])
        kind = kind or ("cuda" if marked(first) else "cpu")
        dtypes = [value for value in (*args[1:], *kwargs.values()) if isinstance(value, torch.dtype)]
        dtypes += [value.dtype for value in args[1:] if isinstance(value, Tensor)]
        others = {key: value for key, value in kwargs.items() if key == "memory_format"}
        moved: Tensor = torch.Tensor.to(first, dtype=dtypes[0] if dtypes else first.dtype, **others)
        if moved is first and marked(first) != (kind == "cuda"):
            moved = first.clone() if first.requires_grad else first.detach().clone()
        _mark(moved, kind == "cuda")
        return moved

    def _worked_out(self, name: str, function: Callable[..., Any], args: Any, kwargs: dict[str, Any]) -> Any:
        tensors = _tensors((args, kwargs))
        on = any(marked(tensor) for tensor in tensors)
        if on and name in TO_NUMPY:
            raise WrongDeviceError(f"{name} of a tensor on cuda")
        backward = torch._C._current_graph_task_id() != -1  # autograd's own tensors have no marks
        if on and not backward and name not in ACROSS:
            checked = tensors
            if name in PLACES and marked(tensors[0]):
                checked = [tensors[0], *(t for t in tensors[1:] if t.dtype not in (torch.int64, torch.bool))]
            if strangers := [t for t in checked if not marked(t) and t.dim() > 0]:
                raise WrongDeviceError(f"{name}: {tuple(strangers[0].shape)} is on the CPU, others are on cuda")
        place = kwargs.get("device")
        if place is not None:
            on = torch.device(place).type == "cuda"
            kwargs["device"] = "cpu"
        if on and kwargs.get("generator") is not None:
            raise WrongDeviceError(f"{name}: a generator of the CPU cannot draw on cuda")
        result = function(*args, **kwargs)
        if name in ("copy_", "__setitem__"):
            return result
        _mark(result, on)
        return result


def _make_subclass(cls: type[Any], data: Tensor, requires_grad: bool = False, **kwargs: Any) -> Any:
    """How `nn.Parameter` is made of a tensor; PyTorch shows it to no mode."""
    made = MAKE_SUBCLASS(cls, data, requires_grad, **kwargs)
    _mark(made, marked(data))
    return made


MAKE_SUBCLASS = torch.Tensor._make_subclass


@contextmanager
def pretend_cuda() -> Iterator[None]:
    """Inside, "cuda" is a device like any other; where there is a real one, it is that."""
    if torch.cuda.is_available():
        with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):  # 10 bits are not the CPU's numbers
            yield
        return
    with (
        patch("torch.cuda.synchronize"),
        patch("torch.cuda.is_bf16_supported", return_value=False),
        patch("torch.cuda.get_rng_state", torch.get_rng_state),
        patch("torch.cuda.set_rng_state"),
        patch("torch.Tensor._make_subclass", staticmethod(_make_subclass)),
        _PretendCuda(),
    ):
        yield
