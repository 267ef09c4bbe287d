"""Reads the operators of an ONNX file, without the library onnx: the few fields of its protocol buffers that it needs.

Source: onnx.proto3 of the ONNX repository (field numbers); Protocol Buffers, "Encoding".
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5


@dataclass
class Node:
    """One node.

    Attributes:
        operator, domain, name: of the node; the domain of ONNX's own operators is "".
        inputs: names of its inputs, "" for one that is left out.
        attributes: name → a number or a text; others are left out.
    """

    operator: str = ""
    domain: str = ""
    name: str = ""
    inputs: list[str] = field(default_factory=list)
    attributes: dict[str, int | str] = field(default_factory=dict)


@dataclass
class Model:
    """The content of a file.

    Attributes:
        opset: version of ONNX's operators.
        nodes: of the graph and of the graphs inside If and Loop.
        constants: names of initializers and of the results of Constant nodes.
        inputs: input of the main graph → number of its element type.
    """

    opset: int = 0
    nodes: list[Node] = field(default_factory=list)
    constants: set[str] = field(default_factory=set)
    inputs: dict[str, int] = field(default_factory=dict)


def read_model(content: bytes) -> Model:
    """The operators of an ONNX file.

    Raises:
        ValueError: it is damaged.
    """
    model = Model()
    for number, value in _fields(content):
        if number == 7 and isinstance(value, bytes):
            _read_graph(value, model, outermost=True)
        elif number == 8 and isinstance(value, bytes):
            parts = dict(_fields(value))
            if parts.get(1, b"") in (b"", b"ai.onnx"):
                model.opset = int(parts.get(2, 0))
    if not model.nodes:
        raise ValueError("has no graph")
    return model


def _read_graph(content: bytes, model: Model, outermost: bool = False) -> None:
    for number, value in _fields(content):
        if not isinstance(value, bytes):
            continue
        if number == 1:
            _read_node(value, model)
        elif number == 5:
            model.constants.add(_text(dict(_fields(value, only=8)).get(8, b"")))
        elif number == 11 and outermost:
            name, kind = _value_info(value)
            model.inputs[name] = kind


def _read_node(content: bytes, model: Model) -> None:
    node = Node()
    outputs = []
    for number, value in _fields(content):
        if not isinstance(value, bytes):
            continue
        if number == 1:
            node.inputs.append(_text(value))
        elif number == 2:
            outputs.append(_text(value))
        elif number in (3, 4, 7):
            setattr(node, {3: "name", 4: "operator", 7: "domain"}[number], _text(value))
        elif number == 5:
            _read_attribute(value, node, model)
    model.nodes.append(node)
    if node.operator == "Constant":
        model.constants.update(outputs)


def _read_attribute(content: bytes, node: Node, model: Model) -> None:
    name = ""
    for number, value in _fields(content):
        if number == 1:
            name = _text(value)
        elif number in (6, 11) and isinstance(value, bytes):
            _read_graph(value, model)
        elif number == 3 and isinstance(value, int):
            node.attributes[name] = value
        elif number == 4:
            node.attributes[name] = _text(value)


def _value_info(content: bytes) -> tuple[str, int]:
    """Name and element type of an input."""
    parts = dict(_fields(content))
    kind = parts.get(2, b"")
    tensor = dict(_fields(kind)).get(1, b"") if isinstance(kind, bytes) else b""
    element = dict(_fields(tensor)).get(1, 0) if isinstance(tensor, bytes) else 0
    return _text(parts.get(1, b"")), element if isinstance(element, int) else 0


def _text(value: object) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else ""


def _fields(content: bytes, only: int | None = None) -> Iterator[tuple[int, int | bytes]]:
    """Number and value of each field of a message; fixed numbers are given as bytes.

    Args:
        content: the message.
        only: number of the one field that is wanted, so that weights need not be copied.

    Raises:
        ValueError: it is damaged.
    """
    place, end = 0, len(content)
    while place < end:
        key, place = _varint(content, place)
        number, kind = key >> 3, key & 7
        if kind == VARINT:
            value, place = _varint(content, place)
            if only in (None, number):
                yield number, value
            continue
        if kind == BYTES:
            size, place = _varint(content, place)
        elif kind in (FIXED64, FIXED32):
            size = 8 if kind == FIXED64 else 4
        else:
            raise ValueError(f"has a field of the unknown kind {kind}")
        if place + size > end:
            raise ValueError("ends in the middle of a field")
        if only in (None, number):
            yield number, content[place : place + size]
        place += size


def _varint(content: bytes, place: int) -> tuple[int, int]:
    """A number of variable length, and the place after it."""
    value = shift = 0
    while True:
        if place >= len(content) or shift > 63:
            raise ValueError("has a number that does not end")
        byte = content[place]
        value |= (byte & 127) << shift
        place, shift = place + 1, shift + 7
        if not byte & 128:
            return value, place
