"""Finds the compiled library of csrc/, its functions by name, and whether they may be used here."""

import ctypes
import importlib.util
from contextlib import AbstractContextManager
from functools import cache
from typing import Any

import torch
from torch import Tensor

from adaptiveisp.errors import logger
from adaptiveisp.kernels.switches import is_off, switched_off
from adaptiveisp.utils.provenance import add_fact

SWITCH = "ADAPTIVEISP_NATIVE"
"""Environment variable; 0 turns the kernels off."""

INTERFACE = 12
"""Version of the functions' signatures, the same number as in csrc/kernels.h. Every change of either raises both."""

_POINTER, _LONG, _INT = ctypes.c_void_p, ctypes.c_int64, ctypes.c_int32
_FLOAT, _DOUBLE = ctypes.c_float, ctypes.c_double
_SIGNATURES: dict[str, tuple[list[Any], Any]] = {
    "chain": ([_POINTER, _POINTER, _LONG, _LONG, _LONG, _POINTER, _POINTER, _INT], None),
    "sharpen": ([_POINTER, _POINTER, _LONG, _LONG, _LONG, _LONG, _FLOAT], None),
    "demosaic": ([_POINTER, _INT, _POINTER, _LONG, _LONG, _LONG, _LONG, *[_POINTER] * 5], None),
    "pool": ([_POINTER, _POINTER, _LONG, _LONG, _LONG, _LONG, _LONG, _POINTER], None),
    "laplacian": ([_POINTER, _LONG, _LONG, _LONG, _LONG, _POINTER], _DOUBLE),
    "moments": ([_POINTER, _POINTER, *[_LONG] * 5, _POINTER], None),
    "coefficients": ([_POINTER, _POINTER, *[_LONG] * 4, _FLOAT, _POINTER], None),
    "guided": ([_POINTER, _POINTER, _POINTER, *[_LONG] * 5, _FLOAT, _POINTER], None),
    "local_tone": ([_POINTER, _POINTER, _POINTER, *[_LONG] * 5, _FLOAT, _FLOAT, _POINTER], None),
    "pointwise_backward": ([_POINTER, _POINTER, _POINTER, _LONG, _LONG, _LONG, _INT, _POINTER, _POINTER], None),
    "sharpen_backward": ([_POINTER, _POINTER, _POINTER, *[_LONG] * 4, _FLOAT, _POINTER], _DOUBLE),
    "guided_backward": ([*[_POINTER] * 5, *[_LONG] * 5, _FLOAT, _POINTER], _DOUBLE),
    "local_tone_backward": ([*[_POINTER] * 5, *[_LONG] * 5, _FLOAT, _FLOAT, _POINTER, _POINTER], None),
    "coefficients_backward": ([_POINTER, _POINTER, _POINTER, _LONG, _LONG, _FLOAT, _POINTER], _DOUBLE),
    "moments_backward": ([*[_POINTER] * 4, *[_LONG] * 5, _POINTER], None),
    "bilateral_grid": ([*[_POINTER] * 4, *[_LONG] * 8, _POINTER], None),
    "bilateral_grid_backward": ([*[_POINTER] * 7, *[_LONG] * 8, _POINTER], None),
    "unprocess": ([_POINTER, *[_LONG] * 3, _POINTER, _POINTER, *[_LONG] * 4, _POINTER, _POINTER], None),
    "add_noise": ([_POINTER, _POINTER, _POINTER, _LONG, _LONG, _FLOAT], None),
    "unpack": ([_POINTER, _POINTER, *[_LONG] * 4, _INT], None),
    "develop_small": (
        [_POINTER, _INT, _POINTER, *[_LONG] * 6, *[_POINTER] * 3, *[_POINTER, _POINTER, _LONG] * 2, _POINTER],
        None,
    ),
    "resize_axis": ([_LONG, _LONG, _LONG, _POINTER, _POINTER], _LONG),
    "resize": ([_POINTER, _POINTER, *[_LONG] * 5, *[_POINTER, _POINTER, _LONG] * 2, _POINTER], None),
    "nlm_scratch": ([], _LONG),
    "nlm_forward": ([*[_POINTER] * 3, *[_LONG] * 6, _FLOAT, _FLOAT, _POINTER], None),
    "nlm_backward_h": ([*[_POINTER] * 3, *[_LONG] * 6, _FLOAT, _POINTER], _DOUBLE),
    "nlm_backward": ([*[_POINTER] * 4, *[_LONG] * 6, _FLOAT, _FLOAT, _POINTER], _DOUBLE),
    "scan": ([_POINTER, _POINTER, *[_LONG] * 5, _POINTER], _DOUBLE),
    "unclipped": ([_POINTER, _LONG, _DOUBLE, _POINTER], _LONG),
    "below_limit": ([_POINTER, _LONG, _POINTER, _DOUBLE, _POINTER], None),
    "light": ([_POINTER, _POINTER, _LONG, _FLOAT, _POINTER, _POINTER, _POINTER], None),
    "encode": ([_POINTER, _LONG, _LONG, _POINTER, _POINTER, _FLOAT, _POINTER, _POINTER], None),
}


@cache
def _functions() -> dict[str, Any] | None:
    """Functions by name, for the best instruction set that this processor has; None where they are not compiled."""
    spec = importlib.util.find_spec("adaptiveisp.kernels._kernels")
    if spec is None or spec.origin is None:
        return None
    try:
        library = ctypes.CDLL(spec.origin)
        if library.adaptiveisp_interface() != INTERFACE:
            return None
        variants = [name for name in ("avx512", "avx2") if getattr(library, f"adaptiveisp_has_{name}")()]
        found = {name: best_variant(library, name, variants) for name in _SIGNATURES}
    except (OSError, AttributeError):  # compiled for another machine, or from another version of csrc/
        return None
    return found


def best_variant(library: Any, name: str, variants: list[str]) -> Any:
    """A function of the library in the first instruction set for which it is compiled.

    Args:
        library: the compiled library.
        name: name of the function.
        variants: instruction sets of this processor beside "base", the best first; AVX-512 has only some functions.

    Raises:
        AttributeError: the library has no such function.
    """
    for variant in variants:
        function = getattr(library, f"adaptiveisp_{name}_{variant}", None)
        if function is not None:
            break
    else:
        function = getattr(library, f"adaptiveisp_{name}_base")
    function.argtypes, function.restype = _SIGNATURES[name]
    return function


def available() -> bool:
    """Whether the kernels are compiled and not turned off; the first time they are not compiled, the log says so."""
    if is_off(SWITCH):
        return False
    if _functions() is None:
        _say_once_that_none_are_compiled()
        return False
    return True


@cache
def _say_once_that_none_are_compiled() -> None:
    logger.warning(
        "compiled kernels: none, PyTorch computes the modules, several times slower; "
        "install a C compiler and then the package again"
    )


def description() -> str:
    """The best instruction set of the kernels that run, "avx512", "avx2" or "base", or "none" with the reason."""
    if is_off(SWITCH):
        return f"none ({SWITCH}=0)"
    functions = _functions()
    return "none (not compiled)" if functions is None else str(functions["chain"].__name__).rpartition("_")[2]


add_fact("kernels", description)


def turned_off() -> AbstractContextManager[None]:
    """Within the context everything runs as if the kernels were not compiled; for comparisons, in one thread only."""
    return switched_off(SWITCH)


def takes(*tensors: Tensor) -> bool:
    """Whether the kernels can work on these tensors: they are there, and the tensors are float32 on the CPU."""
    return available() and all(tensor.dtype == torch.float32 and tensor.device.type == "cpu" for tensor in tensors)


def function(name: str) -> Any:
    """The function of csrc/ with this name, for ctypes.

    Raises:
        RuntimeError: the kernels are not compiled; ask `available` first.
    """
    functions = _functions()
    if functions is None:
        raise RuntimeError(f"the kernel {name} is not compiled; ask available() first")
    return functions[name]
