"""How `tests.robustness.fuzz` damages files whose format it knows: pictures, raws, weights and networks."""

import io
import json
import random
import struct
import zipfile
import zlib
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tests.robustness.fuzz_mutations import (
    BLIND,
    CODE,
    ODD_NUMBERS,
    Change,
    Outside,
    changed_tensor,
    changed_value,
    flipped,
    json_changed,
    overwritten,
    text_changed,
    xml_changed,
    yaml_changed,
)

# pictures


@cache
def _bomb() -> bytes:
    """Little that unpacks to much."""
    return zlib.compress(bytes(50_000_000), 1)


def png_changed(content: bytes, random_: random.Random, outside: Outside) -> bytes:
    """A PNG with other chunks, whose checksums are right."""
    chunks, at = [], 8
    while at + 8 <= len(content):
        (length,) = struct.unpack_from(">I", content, at)
        chunks.append((content[at + 4 : at + 8], content[at + 8 : at + 8 + length]))
        at += 12 + length
    if not chunks:
        return flipped(content, random_, outside)
    place = random_.randrange(len(chunks))
    name, body = chunks[place]
    how = random_.randrange(7)
    if how < 2:
        head = bytearray(chunks[0][1].ljust(13, b"\0"))
        field, code = random_.choice(((0, ">I"), (4, ">I"), (8, "B"), (9, "B"), (10, "B"), (12, "B")))
        largest = 2 ** (8 * struct.calcsize(code)) - 1
        number = random_.choice((0, 1, 2, 3, 4, 16, 17, 20_000, 65_535, 2**31 - 1, largest))
        struct.pack_into(code, head, field, min(largest, number))
        chunks[0] = (b"IHDR", bytes(head))
    elif how == 2:
        del chunks[place]
    elif how == 3:
        chunks.insert(place, (name, body))
    elif how == 4:
        bomb, key = _bomb(), random_.choice((b"Comment", b"adaptiveisp"))
        kind = random_.choice((b"zTXt", b"iCCP", b"iTXt", b"IDAT"))
        chunks.insert(
            1, (kind, bomb if kind == b"IDAT" else key + b"\0" + (b"\1\0\0\0" if kind == b"iTXt" else b"\0") + bomb)
        )
    elif how == 5:
        chunks[place] = (name, random_.choice(BLIND)(body, random_, outside))
    else:
        text = random_.choice(
            (b'{"unprocessing": 1}', b"[" * 5000, b"\x1b[31m", b"{}", b'{"adaptiveisp": {"gains": NaN}}')
        )
        chunks.insert(1, (b"tEXt", random_.choice((b"adaptiveisp", b"Description", b"Comment")) + b"\0" + text))
    packed = (struct.pack(">I", len(b)) + n + b + struct.pack(">I", zlib.crc32(n + b)) for n, b in chunks)
    return content[:8] + b"".join(packed)


def npy_changed(content: bytes, random_: random.Random, outside: Outside) -> bytes:
    """An npy file with another header, well-formed."""
    length = struct.unpack_from("<H", content, 8)[0] if len(content) > 10 else 0
    body = content[10 + length :]
    shapes = (
        "(48, 64)",
        "(-1, 64)",
        "(2147483648, 2147483648)",
        "(0, 0)",
        "()",
        "(3, 48, 64)",
        "'x'",
        "(1,)" * 40,
        "(1e3, 2)",
    )
    shapes += (
        "(9999999999999999999999,)",
        "(48, 64, 3)",
        "(48, 64, 1, 1)",
        "(3072,)",
        "(True, 3072)",
        "(100000, 100000)",
    )
    kinds = (
        "'<u2'",
        "'>u2'",
        "'<f4'",
        "'<f8'",
        "'|O'",
        "'<c16'",
        "'|V8'",
        "'<M8[s]'",
        "'|S3'",
        "'|b1'",
        "'<i8'",
        "'<u8'",
        "'<f2'",
    )
    kinds += (
        "[('a', '<i4')]",
        "'|V2147483647'",
        "('<u2', (9, 9))",
        "'<f16'",
        "None",
        "'x'",
        "'<i1'",
        "__import__('os')",
    )
    order = random_.choice(("False", "False", "True", "2"))
    text = f"{{'descr': {random_.choice(kinds)}, 'fortran_order': {order}, 'shape': {random_.choice(shapes)}, }}"
    if random_.randrange(8) == 0:
        text = random_.choice(("{}", "[" * 5000, text[:-4], "\x1b[31m", text + " " * 20_000, "{'a': 1}"))
    header = (text + "\n").encode()
    version = random_.choice((1, 1, 1, 2, 3, 9))
    size = struct.pack("<H" if version == 1 else "<I", len(header) % 2**16)
    return b"\x93NUMPY" + bytes((version, 0)) + size + header + body


# TIFF and DNG


def _entries(content: bytes) -> tuple[str, bool, list[int], list[int]]:
    """Byte order, whether it is a BigTIFF, the offsets of the entries, and those of the pointers to directories."""
    order = "<" if content[:2] == b"II" else ">"
    big = struct.unpack_from(order + "H", content, 2)[0] == 43
    code, count_code, size = ("Q", "Q", 20) if big else ("I", "H", 12)
    pointer = 8 if big else 4
    found, pointers = list[int](), list[int]()
    for _ in range(8):
        (at,) = struct.unpack_from(order + code, content, pointer)
        if not 0 < at < len(content) or pointer in pointers:
            break
        pointers.append(pointer)
        (n_entries,) = struct.unpack_from(order + count_code, content, at)
        start = at + struct.calcsize("<" + count_code)
        found += [start + size * number for number in range(min(n_entries, 100))]
        pointer = start + size * n_entries
    return order, big, found, [*pointers, pointer]


def tiff_changed(content: bytes, random_: random.Random, outside: Outside) -> bytes:
    """A TIFF with another tag, type, count, value or offset, or a chain of directories that loops."""
    try:
        order, big, entries, pointers = _entries(content)
        changed = bytearray(content)
        code = "Q" if big else "I"
        at = random_.choice(entries)
        numbers = (
            0,
            1,
            2,
            3,
            6,
            8,
            16,
            255,
            256,
            2**16 - 1,
            2**31 - 1,
            2**31,
            2**32 - 1,
            len(content),
            len(content) - 1,
            8,
        )
        number = random_.choice(numbers)
        how = random_.randrange(7)
        if how == 0:  # another tag
            tags = (
                256,
                257,
                258,
                259,
                262,
                273,
                277,
                278,
                279,
                322,
                324,
                330,
                33421,
                33422,
                50713,
                50714,
                50717,
                34665,
                50829,
            )
            struct.pack_into(order + "H", changed, at, random_.choice((*tags, number % 2**16)))
        elif how == 1:  # type
            struct.pack_into(
                order + "H", changed, at + 2, random_.choice((0, 1, 2, 3, 4, 5, 7, 9, 10, 11, 12, 13, 16, 99))
            )
        elif how == 2:  # count
            struct.pack_into(order + code, changed, at + 4, number)
        elif how == 3:  # the value itself, or its offset
            struct.pack_into(order + code, changed, at + (12 if big else 8), number)
        elif how == 4:  # a short value, left-justified
            struct.pack_into(order + "H", changed, at + (12 if big else 8), number % 2**16)
        elif how == 5:  # a loop, or a chain that leaves the file
            target = struct.unpack_from(order + code, content, pointers[0])[0]
            struct.pack_into(
                order + code, changed, random_.choice(pointers), random_.choice((target, target + 2, number))
            )
        else:  # an entry becomes a pointer to its own directory
            target = struct.unpack_from(order + code, content, pointers[0])[0]
            layout = order + ("HHQQ" if big else "HHII")
            struct.pack_into(layout, changed, at, random_.choice((330, 34665)), random_.choice((4, 13)), 1, target)
        return bytes(changed)
    except (struct.error, IndexError, OverflowError):
        return overwritten(content, random_, outside)


# weights and networks


def safetensors_changed(content: bytes, random_: random.Random, outside: Outside) -> bytes:
    """A safetensors file with another value in its header, or in the JSON inside that."""
    try:
        (length,) = struct.unpack_from("<Q", content)
        header = json.loads(content[8 : 8 + length])
        metadata = header.get("__metadata__") or {}
        name = next((key for key in metadata if key.startswith("adaptiveisp")), "")
        if name and random_.random() < 0.6:
            metadata[name] = json_changed(metadata[name].encode(), random_, outside).decode("utf-8", "replace")
        else:
            header = changed_value(header, random_, outside)
        packed = json.dumps(header).encode()
    except (ValueError, struct.error, AttributeError, RecursionError):
        return overwritten(content, random_, outside)
    stated = random_.choice((0, 2**31, 2**63, 2**64 - 1, len(content))) if random_.randrange(12) == 0 else len(packed)
    return struct.pack("<Q", stated) + packed + content[8 + length :]


def tensors_changed(content: bytes, random_: random.Random, outside: Outside) -> bytes:
    """A safetensors file in which a tensor has other values, another shape or another type."""
    from safetensors import SafetensorError
    from safetensors.torch import load, save

    try:
        tensors = load(content)
        (length,) = struct.unpack_from("<Q", content)
        metadata = json.loads(content[8 : 8 + length]).get("__metadata__")
        name = random_.choice(sorted(tensors))
        changed = changed_tensor(tensors[name], random_, outside)
        small = isinstance(changed, torch.Tensor) and changed.layout == torch.strided and changed.numel() < 10**7
        if small and changed.device.type == "cpu":
            tensors[name] = changed.contiguous().clone()
        else:
            del tensors[name]
        return save(tensors, metadata)
    except (ValueError, struct.error, SafetensorError, RuntimeError, IndexError):
        return overwritten(content, random_, outside)


def torch_changed(content: bytes, random_: random.Random, outside: Outside) -> bytes:
    """A file of torch.save: another value in the tree, or other bytes in a part of the zip, whose checksum is right."""

    import torch

    try:
        if random_.random() < 0.5:
            value = torch.load(io.BytesIO(content), weights_only=True)
            stream = io.BytesIO()
            torch.save(changed_value(value, random_, outside), stream)
            return stream.getvalue()
    except Exception:  # not of plain values, or what was made of it cannot be saved
        pass
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            parts = {name: archive.read(name) for name in archive.namelist()}
    except (zipfile.BadZipFile, ValueError, NotImplementedError, OSError, zlib.error):
        return overwritten(content, random_, outside)
    pickles = [name for name in parts if name.endswith("data.pkl")]
    name = random_.choice(pickles if pickles and random_.random() < 0.7 else sorted(parts))
    evil = (
        b"cos\nsystem\n(S'touch ../ran'\ntR.",
        b"\x80\x02]" + b"]" * 5000 + b".",
        b"\x80\x04\x8d" + b"\xff" * 8,
        b"]q\0h\0a.",
    )
    parts[name] = random_.choice(BLIND)(parts[name], random_, outside) if random_.randrange(6) else random_.choice(evil)
    if random_.randrange(10) == 0:
        parts["../ran" if random_.random() < 0.5 else "/tmp/ran"] = b"x"
    if random_.randrange(10) == 0:
        parts.pop(random_.choice(sorted(parts)))
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for part, body in parts.items():
            archive.writestr(part, body)
    return stream.getvalue()


def onnx_changed(content: bytes, random_: random.Random, outside: Outside) -> bytes:
    """An ONNX model with another dimension, type, attribute, edge, place of its data, or fact."""
    import onnx
    from google.protobuf.message import DecodeError, EncodeError

    model = onnx.ModelProto()
    try:
        model.ParseFromString(content)
        graph = model.graph
        random_.choice((_onnx_tensor, _onnx_tensor, _onnx_shape, _onnx_node, _onnx_node, _onnx_model))(
            model, graph, random_, outside
        )
        return model.SerializeToString()
    except (DecodeError, EncodeError, IndexError, ValueError, UnicodeError, TypeError):
        return overwritten(content, random_, outside)


def _onnx_tensor(model: Any, graph: Any, random_: random.Random, outside: Outside) -> None:
    tensor = random_.choice(graph.initializer)
    how = random_.randrange(4)
    if how == 0:
        tensor.dims[:] = [random_.choice((0, 1, -1, 3, 2**31, 2**62)) for _ in range(random_.randrange(5))]
    elif how == 1:
        tensor.data_type = random_.choice((0, 1, 2, 7, 8, 9, 10, 11, 16, 99))
    elif how == 2:
        tensor.data_location = 1
        del tensor.external_data[:]
        facts = {"location": random_.choice((*outside.paths, "weights.bin")).replace("\0", "0")}
        facts |= {"offset": str(random_.choice(ODD_NUMBERS)), "length": str(random_.choice(ODD_NUMBERS))}
        for key, value in facts.items():
            entry = tensor.external_data.add()
            entry.key, entry.value = key, value
    else:
        tensor.raw_data = random_.choice(
            (b"", tensor.raw_data[:-1], np.float32(np.nan).tobytes() * (len(tensor.raw_data) // 4))
        )


def _onnx_shape(model: Any, graph: Any, random_: random.Random, outside: Outside) -> None:
    value = random_.choice([*graph.input, *graph.output])
    how = random_.randrange(4)
    if how == 0:
        value.type.tensor_type.elem_type = random_.choice((0, 1, 2, 7, 8, 9, 10, 14, 99))
    elif how == 1:
        value.name = random_.choice(("", "x" * 3000, "\x1b[31m", "images2", "a\nb"))
    elif how == 2 and value.type.tensor_type.shape.dim:
        dim = random_.choice(value.type.tensor_type.shape.dim)
        dim.dim_value = random_.choice((0, 1, -1, 2, 4, 33, 64, 2**20, 2**31, 2**62))
    else:
        value.type.tensor_type.shape.dim.add().dim_value = random_.choice((1, 3, 2**31))


def _onnx_node(model: Any, graph: Any, random_: random.Random, outside: Outside) -> None:
    node, other = random_.choice(graph.node), random_.choice(graph.node)
    how = random_.randrange(6)
    if how == 0 and node.input:  # a cycle, where it reads what comes later
        node.input[random_.randrange(len(node.input))] = other.output[0]
    elif how == 1:
        node.op_type = random_.choice(
            ("Loop", "If", "Expand", "Tile", "ConstantOfShape", "Range", "Pad", "Resize", "Nothing", "\x1b[31m")
        )
    elif how == 2 and node.attribute:
        attribute = random_.choice(node.attribute)
        attribute.i = random_.choice((0, -1, 2, 2**31, 2**62))
        if attribute.ints:
            attribute.ints[0] = random_.choice((0, -1, 2, 2**31, 2**62))
    elif how == 3 and node.input:
        node.input[random_.randrange(len(node.input))] = random_.choice(("", "nowhere", "images"))
    elif how == 4:
        node.domain = random_.choice(("com.microsoft", "x", "\x1b[31m"))
    else:
        graph.node.remove(node)


def _onnx_model(model: Any, graph: Any, random_: random.Random, outside: Outside) -> None:
    how = random_.randrange(4)
    if how == 0:
        model.ir_version = random_.choice((0, 1, 3, 8, 99, 2**40))
    elif how == 1 and model.opset_import:
        model.opset_import[0].version = random_.choice((0, 1, 7, 11, 99, 2**40))
    elif how == 2 and model.metadata_props:
        entry = random_.choice(model.metadata_props)
        entry.value = random_.choice(
            (
                *outside.paths,
                "{0: " * 500,
                "[1, 2, 3]",
                "{0: 'a', 0: 'b'}",
                "{-1: 'a'}",
                "\x1b[31m",
                "x" * 10**5,
                CODE,
                "[64, 64]",
            )
        )
    else:
        entry = model.metadata_props.add()
        entry.key = random_.choice(("names", "stride", "task", "imgsz", "nms", "end2end", "args"))
        entry.value = random_.choice(
            ("", "None", "nan", "-1", "1" + "0" * 400, "{'nms': 1}", "[0, -5]", "True", "9" * 5000)
        )


def npz_changed(content: bytes, random_: random.Random, outside: Outside) -> bytes:
    """An npz file with another array, or with an array more, whose checksums are right."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            parts = {name: archive.read(name) for name in archive.namelist()}
    except (zipfile.BadZipFile, ValueError, NotImplementedError, OSError, zlib.error):
        return overwritten(content, random_, outside)
    name = random_.choice(sorted(parts))
    parts[name] = npy_changed(parts[name], random_, outside)
    if random_.randrange(4) == 0:
        parts[random_.choice(("mosaic.npy", "../ran.npy", "pattern.npy", "raw", "a" * 300))] = random_.choice(
            (b"", parts[name])
        )
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", random_.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))) as archive:
        for part, body in parts.items():
            archive.writestr(part, body)
    return stream.getvalue()


def pnm_changed(content: bytes, random_: random.Random, outside: Outside) -> bytes:
    """A PGM with another header."""
    numbers = ("0", "1", "7", "255", "256", "65535", "65536", "-1", "99999", "999999999", "9" * 30, "1e3", "#", "")
    kind = random_.choice(("P5", "P5", "P6", "P2", "P4", "P7", "PF", "P"))
    fields = [random_.choice(numbers) if random_.randrange(2) else right for right in ("64", "48", "4095")]
    gaps = (" ", "\n", "\r\n", "\t# a\n", "\n" * 3, "#" * 1000 + "\n", "")
    head = kind + "".join(random_.choice(gaps[:-1] if random_.randrange(8) else gaps) + field for field in fields)
    return (head + "\n").encode() + content[random_.choice((27, 27, 27, 5, 3000)) :]


CHANGES: dict[str, tuple[Change, ...]] = {
    ".npz": (npz_changed,),
    ".pgm": (pnm_changed,),
    ".yaml": (yaml_changed, yaml_changed, text_changed),
    ".json": (json_changed, json_changed, text_changed),
    ".jsonl": (json_changed, text_changed),
    ".xml": (xml_changed,),
    ".txt": (text_changed,),
    ".cfg": (text_changed,),
    ".names": (text_changed,),
    ".png": (png_changed,),
    ".npy": (npy_changed,),
    ".tif": (tiff_changed,),
    ".dng": (tiff_changed,),
    ".nef": (tiff_changed,),
    ".safetensors": (safetensors_changed, safetensors_changed, tensors_changed),
    ".pt": (torch_changed,),
    ".pth": (torch_changed,),
    ".onnx": (onnx_changed,),
}
"""Ending → what knows its format."""

SHARE_BLIND = 0.2
"""Of the changes are blind where something knows the format."""


def damaged(name: str, content: bytes, random_: random.Random, outside: Outside) -> bytes:
    """A file after one, two or three changes.

    Args:
        name: of the file; its ending says which changes know it.
        content: of the valid file.
        random_: makes every choice.
        outside: what references may name.
    """
    knowing = CHANGES.get(Path(name).suffix, ())
    for _ in range(random_.choice((1, 1, 1, 2, 3))):
        change = random_.choice(BLIND if not knowing or random_.random() < SHARE_BLIND else knowing)
        try:
            content = change(content, random_, outside)
        except Exception:  # an earlier change left nothing that still has the format
            content = overwritten(content, random_, outside)
    return content
