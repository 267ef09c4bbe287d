"""A restricted unpickler, which returns plain data and neither imports nor calls anything that the pickle names.

A pickle is a program, and Python's unpickler imports and calls whatever it names. This interpreter knows the same
instructions, but reads an object as a `Record` of its class name and its state, and a tensor as a `StoredTensor`. Of
the calls, it carries out the few that rebuild those two, records some harmless ones, and refuses all others.

Source: the instructions as documented in the standard library's `pickletools`; the layout of PyTorch's files.
"""

import math
import pickletools
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import torch

MAX_INSTRUCTIONS = 1_000_000
"""Most instructions of a pickle; the largest published detectors have some 200,000. Each takes at most 200 bytes."""

MAX_DIMENSIONS = 8
"""Most dimensions of a tensor; the weights of a convolution have four."""

MAX_VALUES = 2**40
"""Upper bound of the values in a storage, and of the sizes and offsets of a tensor."""

STORAGES: dict[str, torch.dtype] = {
    "torch.FloatStorage": torch.float32,
    "torch.HalfStorage": torch.float16,
    "torch.BFloat16Storage": torch.bfloat16,
    "torch.DoubleStorage": torch.float64,
    "torch.LongStorage": torch.int64,
    "torch.IntStorage": torch.int32,
    "torch.ShortStorage": torch.int16,
    "torch.CharStorage": torch.int8,
    "torch.ByteStorage": torch.uint8,
    "torch.BoolStorage": torch.bool,
}
"""Name of a storage's class in a pickle → type of its values."""

NOTED_CALLS = frozenset(
    (
        *("torch.Size", "torch.device", "__builtin__.set", "builtins.set", "_codecs.encode"),
        *("numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar", "numpy.dtype"),
        *("numpy.core.multiarray._reconstruct", "numpy._core.multiarray._reconstruct"),
        *("pathlib.PosixPath", "pathlib.WindowsPath", "pathlib.Path", "datetime.datetime", "datetime.date"),
    )
)
"""Calls for parts of checkpoints that are not needed, which become inert records. All others are refused."""

NUMBERS_AND_TEXT = frozenset(
    (
        *("BININT", "BININT1", "BININT2", "LONG1", "LONG4", "BINFLOAT"),
        *("SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8", "SHORT_BINBYTES", "BINBYTES", "BINBYTES8"),
    )
)
"""Instructions that push their argument."""

CONSTANTS: dict[str, Any] = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
"""Instruction → value that it pushes."""

SHORT_TUPLES: dict[str, int] = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
"""Instruction → number of values that it makes a tuple of."""

CONTAINERS: dict[str, Callable[[], Any]] = {
    "EMPTY_DICT": dict,
    "EMPTY_LIST": list,
    "EMPTY_SET": lambda: Record("builtins.set"),
}
"""Instruction → function that makes the container that it pushes."""


class RefusedError(ValueError):
    """The pickle is damaged, or holds an instruction or a call that is not allowed."""


class Name(NamedTuple):
    """Name of an object that Python's unpickler would import."""

    module: str
    attribute: str

    def __str__(self) -> str:
        return f"{self.module}.{self.attribute}"


@dataclass(eq=False)
class Record:
    """Plain data in place of an object: the dotted name of its class or callable, and its state."""

    name: str
    state: Any = None


@dataclass(frozen=True, eq=False)
class StoredTensor:
    """Location of a tensor's values in the file.

    Attributes:
        key: name of the storage.
        dtype: type of the values.
        numel: number of values in the storage.
        offset: position of the tensor's first value in the storage.
        shape, stride: shape and strides of the tensor, in values.
    """

    key: str
    dtype: torch.dtype
    numel: int
    offset: int = 0
    shape: tuple[int, ...] = ()
    stride: tuple[int, ...] = ()


def read_pickle(content: bytes) -> Any:
    """The content of a pickle as dicts, lists, tuples, numbers, text, `Name`, `Record` and `StoredTensor`.

    Nothing that the pickle names is imported or called. The result may contain itself.

    Args:
        content: bytes of the pickle.

    Raises:
        RefusedError: the pickle is damaged or too long, or makes a call that is not allowed.
    """
    try:
        return _Machine().run(content)
    except RefusedError:
        raise
    # Damaged pickles cause many kinds of errors, also in `pickletools`; in none of them was any code of the file run.
    except Exception as error:
        raise RefusedError(f"is damaged ({type(error).__name__})") from error


def shown(name: object) -> str:
    """A name from a file as one short line for messages."""
    return ascii(str(name))[1:-1][:60]


@dataclass
class _Machine:
    """State of a running pickle: its stack, the stacks that marks set aside, and its memo."""

    stack: list[Any] = field(default_factory=list)
    below: list[list[Any]] = field(default_factory=list)
    memory: dict[int, Any] = field(default_factory=dict)

    def pop(self, count: int) -> list[Any]:
        """The last `count` values, in the order in which they were pushed."""
        return [self.stack.pop() for _ in range(count)][::-1]

    def pop_to_mark(self) -> list[Any]:
        items, self.stack = self.stack, self.below.pop()
        return items

    def run(self, content: bytes) -> Any:
        """The value that the pickle leaves on the stack. Frequent instructions are handled here, without calls."""
        argument: Any
        for count, (opcode, argument, _) in enumerate(pickletools.genops(content)):
            instruction = opcode.name
            if count == MAX_INSTRUCTIONS:
                raise RefusedError(f"has more than {MAX_INSTRUCTIONS} instructions")
            if instruction in NUMBERS_AND_TEXT:
                self.stack.append(argument)
            elif instruction in CONSTANTS:
                self.stack.append(CONSTANTS[instruction])
            elif instruction in ("BINPUT", "LONG_BINPUT"):
                self.memory[argument] = self.stack[-1]
            elif instruction == "MEMOIZE":
                self.memory[len(self.memory)] = self.stack[-1]
            elif instruction in ("BINGET", "LONG_BINGET"):
                self.stack.append(self.memory[argument])
            elif instruction == "MARK":
                self.below.append(self.stack)
                self.stack = []
            elif instruction in SHORT_TUPLES:
                first = len(self.stack) - SHORT_TUPLES[instruction]
                if first < 0:
                    raise RefusedError("is damaged (values are missing)")
                self.stack[first:] = [tuple(self.stack[first:])]
            elif instruction == "TUPLE":
                items = tuple(self.stack)
                self.stack = self.below.pop()
                self.stack.append(items)
            elif instruction == "STOP":
                return self.stack[-1]
            elif instruction in CONTAINERS:
                self.stack.append(CONTAINERS[instruction]())
            elif instruction in ("SETITEM", "SETITEMS", "APPEND", "APPENDS", "ADDITEMS", "BUILD"):
                self._fill(instruction)
            elif instruction not in ("PROTO", "FRAME"):
                self.stack.append(self._made(instruction, argument))
        raise RefusedError("is damaged (it has no end)")

    def _fill(self, instruction: str) -> None:
        """Puts the last values on the stack into the container or record before them."""
        match instruction:
            case "SETITEM" | "SETITEMS":
                items = self.pop(2) if instruction == "SETITEM" else self.pop_to_mark()
                _set_items(self.stack[-1], items)
            case "BUILD":
                (state,) = self.pop(1)
                _build(self.stack[-1], state)
            case _:
                items = self.pop(1) if instruction == "APPEND" else self.pop_to_mark()
                _extend(self.stack[-1], items)

    def _made(self, instruction: str, argument: Any) -> Any:
        """The value that an instruction makes of the last values on the stack."""
        match instruction:
            case "REDUCE":
                return _call(*self.pop(2))
            case "GLOBAL":  # module and attribute, separated by a space
                return Name(*argument.split(" "))
            case "STACK_GLOBAL":
                return _name(*self.pop(2))
            case "BINPERSID":
                return _storage(*self.pop(1))
            case "NEWOBJ":  # class, arguments
                return _new_object(self.pop(2)[0])
            case "NEWOBJ_EX":  # class, arguments, named arguments
                return _new_object(self.pop(3)[0])
        # INST, OBJ, EXT1, PERSID and others
        raise RefusedError(f"holds the instruction {instruction}, which PyTorch does not write")


def _set_items(target: Any, items: list[Any]) -> None:
    if not isinstance(target, dict | Record):
        raise RefusedError(f"sets items of a {_kind(target)}")
    pairs = zip(items[::2], items[1::2], strict=True)
    if isinstance(target, dict):
        # Other keys are dropped: a nested tuple, or many numbers of equal hash, could take hours to hash.
        target.update((key, value) for key, value in pairs if _is_plain_key(key))


def _is_plain_key(key: Any) -> bool:
    return isinstance(key, str) or (isinstance(key, int | float) and abs(key) < MAX_VALUES)


def _extend(target: Any, items: list[Any]) -> None:
    if isinstance(target, list):
        target.extend(items)
    elif not isinstance(target, Record):
        raise RefusedError(f"adds items to a {_kind(target)}")


def _build(target: Any, state: Any) -> None:
    if isinstance(target, Record):
        target.state = state
    elif not isinstance(
        target, dict
    ):  # attributes of an ordered dict, such as the versions of a state dict, are dropped
        raise RefusedError(f"sets the state of a {_kind(target)}")


def _name(module: Any, attribute: Any) -> Name:
    if not isinstance(module, str) or not isinstance(attribute, str):
        raise RefusedError(f"names a {_kind(module)}'s {_kind(attribute)}")
    return Name(module, attribute)


def _new_object(kind: Any) -> Record:
    if not isinstance(kind, Name):
        raise RefusedError(f"makes an object of a {_kind(kind)}")
    return Record(str(kind))


def _call(function: Any, arguments: Any) -> Any:
    if not isinstance(function, Name) or not isinstance(arguments, tuple):
        raise RefusedError(f"calls a {_kind(function)}")
    name = str(function)
    if name in NOTED_CALLS:
        return Record(name)
    if name == "torch._utils._rebuild_tensor_v2":
        return _tensor(arguments)
    if name == "torch._utils._rebuild_parameter" and arguments and isinstance(arguments[0], StoredTensor):
        return arguments[0]
    if name == "collections.OrderedDict" and not arguments:
        return {}
    raise RefusedError(f"calls {shown(name)}")


def _storage(reference: Any) -> StoredTensor:
    match reference:
        case ("storage", Name() as kind, str(key), str(), int(numel)) if (
            str(kind) in STORAGES and 0 <= numel < MAX_VALUES
        ):
            return StoredTensor(key, STORAGES[str(kind)], numel)
    raise RefusedError("has a reference that is not a tensor's storage")


def _tensor(arguments: tuple[Any, ...]) -> StoredTensor:
    match arguments:
        # The arguments that follow are `requires_grad` and hooks.
        case (StoredTensor(shape=()) as storage, int(offset), tuple(shape), tuple(stride), *_):
            numbers = (offset, *shape, *stride)
            if len(shape) == len(stride) <= MAX_DIMENSIONS and all(
                type(n) is int and 0 <= n < MAX_VALUES for n in numbers
            ):
                tensor = replace(storage, offset=offset, shape=shape, stride=stride)
                if _fits(tensor):
                    return tensor
    raise RefusedError("holds a tensor that does not fit its storage")


def _fits(tensor: StoredTensor) -> bool:
    """Whether a tensor lies within its storage, and has no more values than that by overlapping strides."""
    count = math.prod(tensor.shape)
    last = tensor.offset + sum((side - 1) * step for side, step in zip(tensor.shape, tensor.stride, strict=True))
    return count == 0 or (last < tensor.numel and count <= tensor.numel)


def _kind(value: object) -> str:
    return shown(value) if isinstance(value, Name) else type(value).__name__
