"""How `tests.fuzz` damages files: blindly, in their bytes; and knowing their format, in a place that a reader trusts.

Every choice comes from the generator that is handed in, so that seed and number of an input give the same file again.
"""

import json
import random
import re
import struct
import sys
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

LARGE = (2**15, 2**16, 2**24, 2**31 - 1, 2**31, 2**32 - 1, 2**53, 2**63 - 1, 2**63, 2**64 - 1, 10**400)
ODD_NUMBERS = (0, 1, -1, 2, 3, 7, 255, 256, 65535, *LARGE, *(-value for value in LARGE))
ODD_FLOATS = (0.5, -0.5, 1e-300, 5e-324, 1e30, 1e308, -1e308, float("nan"), float("inf"), float("-inf"))
CODE = "!!python/object/apply:os.system ['touch ../ran']"


@dataclass(frozen=True)
class Outside:
    """Places that no reader may touch, for references out of the input's folder.

    Attributes:
        canary: path of a file beside the folder.
        pool: contents of valid files of all kinds, to splice with.
    """

    canary: Path
    pool: tuple[bytes, ...]

    @property
    def paths(self) -> tuple[str, ...]:
        """Paths that lead out."""
        return (
            *("../canary.txt", str(self.canary), "..", "../..", "/", "/dev/zero", "/etc/passwd", "/nowhere/at/all"),
            *("x" * 300, "a/" * 3000, "\0", "~/x", "file:///etc/passwd", "https://example.org/x", "./", "NUL", ""),
        )


Change = Callable[[bytes, random.Random, Outside], bytes]


# bytes


def flipped(content: bytes, random_: random.Random, outside: Outside) -> bytes:
    """Some bits are turned over."""
    changed = bytearray(content)
    for _ in range(random_.choice((1, 1, 2, 8, 64)) if changed else 0):
        changed[random_.randrange(len(changed))] ^= 1 << random_.randrange(8)
    return bytes(changed)


def truncated(content: bytes, random_: random.Random, outside: Outside) -> bytes:
    """The end is missing; often all but the beginning."""
    return content[
        : random_.choice((random_.randrange(len(content) + 1), random_.randrange(min(64, len(content)) + 1)))
    ]


def inserted(content: bytes, random_: random.Random, outside: Outside) -> bytes:
    """Foreign bytes stand in the middle."""
    at = random_.randrange(len(content) + 1)
    odd = (b"\0", b"\0" * 100, b"\xff\xfe", b"\xef\xbb\xbf", b"\x1b[31m", b"\xed\xa0\x80", b"\r", b"\n\n", b"%n%s{0}")
    return content[:at] + random_.choice((*odd, random_.randbytes(random_.randrange(1, 40)))) + content[at:]


def duplicated(content: bytes, random_: random.Random, outside: Outside) -> bytes:
    """A block occurs several times."""
    start = random_.randrange(len(content) + 1)
    end = min(len(content), start + random_.choice((1, 4, 12, 16, 64, 512)))
    return content[:end] + content[start:end] * random_.choice((1, 2, 50)) + content[end:]


def removed(content: bytes, random_: random.Random, outside: Outside) -> bytes:
    """A block is missing."""
    start = random_.randrange(len(content) + 1)
    return content[:start] + content[start + random_.choice((1, 2, 4, 12, 64, 512)) :]


def spliced(content: bytes, random_: random.Random, outside: Outside) -> bytes:
    """Begins as this file and ends as another valid one."""
    other = random_.choice(outside.pool)
    return content[: random_.randrange(len(content) + 1)] + other[random_.randrange(len(other) + 1) :]


def overwritten(content: bytes, random_: random.Random, outside: Outside) -> bytes:
    """A number of 1, 2, 4 or 8 bytes becomes an extreme one."""
    size = random_.choice((1, 2, 4, 8))
    if len(content) < size:
        return content
    # The beginning is where formats keep their sizes.
    last = len(content) - size
    at = random_.choice((random_.randrange(last + 1), random_.randrange(min(last, 128) + 1)))
    number = random_.choice((0, 1, 2 ** (8 * size) - 1, 2 ** (8 * size - 1), 2 ** (8 * size - 1) - 1, len(content)))
    written = (number % 2 ** (8 * size)).to_bytes(size, random_.choice(("little", "big")))
    return content[:at] + written + content[at + size :]


BLIND: tuple[Change, ...] = (flipped, truncated, inserted, duplicated, removed, spliced, overwritten)


# values


def odd_value(random_: random.Random, outside: Outside) -> Any:
    """A value that no reader expects in this place."""
    kinds: tuple[Callable[[], Any], ...] = (
        lambda: random_.choice(ODD_NUMBERS),
        lambda: random_.choice(ODD_FLOATS),
        lambda: random_.choice((None, True, False, "", [], {})),
        lambda: random_.choice(outside.paths),
        lambda: random_.choice(("x" * 5000, "x" * 200_000, "a\nb\r\tc", "\x1b[31mred\x1b]0;title\x07", "\u202eabc")),
        lambda: random_.choice(
            ("nan", "-inf", "1e999", "0x10", "yes", "2020-01-01", "\ud800", CODE, "${HOME}", "%n%s")
        ),
        lambda: nested(random_.choice((3, 60, 900))),
        lambda: random_.choice(
            ([0] * 10_000, [[]] * 5, [None, "a", 1.5], {"a": {"b": []}}, {"": 0}, [float("nan")] * 4)
        ),
    )
    return random_.choice(kinds)()


def nested(levels: int) -> Any:
    """Lists in lists."""
    value: Any = 0
    for _ in range(levels):
        value = [value]
    return value


def changed_value(value: Any, random_: random.Random, outside: Outside) -> Any:
    """A tree of mappings and lists with one change somewhere; the tree itself is kept."""
    inner = isinstance(value, Mapping | list | tuple) and len(value) > 0
    if not inner or random_.random() < 0.06:
        return _changed_leaf(value, random_, outside)
    if isinstance(value, Mapping):
        return _changed_mapping(dict(value), random_, outside)
    items = list(value)
    at = random_.randrange(len(items))
    how = random_.randrange(10)
    if how == 0:
        del items[at]
    elif how == 1:
        items[at:at] = [items[at]] * random_.choice((1, 1000))
    elif how == 2:
        items[at] = odd_value(random_, outside)
    else:
        items[at] = changed_value(items[at], random_, outside)
    return items if isinstance(value, list) else tuple(items)


def _changed_mapping(value: dict[Any, Any], random_: random.Random, outside: Outside) -> dict[Any, Any]:
    key = random_.choice(list(value))
    how = random_.randrange(14)
    if how == 0:
        del value[key]
    elif how == 1:
        value[random_.choice(("unknown", "\x1b[2J", "x" * 3000, "__class__", "a\nb", ""))] = value[key]
    elif how == 2:
        value[random_.choice((f"{key}x", str(key).upper(), 7))] = value.pop(key)
    elif how == 3:
        value[key] = odd_value(random_, outside)
    elif how == 4:
        other = random_.choice(list(value))
        value[key], value[other] = value[other], value[key]
    else:
        value[key] = changed_value(value[key], random_, outside)
    return value


def _changed_leaf(value: Any, random_: random.Random, outside: Outside) -> Any:
    if type(value).__name__ in ("Tensor", "Parameter"):
        return _changed_tensor(value, random_, outside)
    if isinstance(value, int | float) and not isinstance(value, bool) and random_.random() < 0.4:
        return random_.choice((-value, value + 1, value - 1, value * 1000, value + 0.5, str(value), [value]))
    return odd_value(random_, outside)


def _changed_tensor(value: Any, random_: random.Random, outside: Outside) -> Any:
    import torch

    kinds: tuple[Callable[[], Any], ...] = (
        lambda: torch.full_like(value, float("nan")) if value.is_floating_point() else value - 1,
        lambda: torch.full_like(value, float("inf")) if value.is_floating_point() else value + 2**62,
        lambda: value.to(random_.choice((torch.float64, torch.float16, torch.int8, torch.bool, torch.complex64))),
        lambda: torch.zeros(random_.choice(((), (0,), (1,), (3, 0, 2), (1,) * 20))),
        # One stored value that stands for billions: nothing may spread it out.
        lambda: torch.zeros(1).expand(random_.choice((2**33, 2**40))),
        lambda: torch.zeros((1,) * max(value.ndim, 1)).expand([2**20] + [2**9] * (max(value.ndim, 1) - 1)),
        lambda: torch.zeros(4, 4).to_sparse(),
        lambda: value[..., :-1] if value.ndim else value,
        lambda: value.unsqueeze(0),
        lambda: torch.empty(2, 3, device="meta"),
        lambda: odd_value(random_, outside),
    )
    return random_.choice(kinds)()


# text


def _number_replaced(text: str, random_: random.Random, outside: Outside) -> str:
    found = list(re.finditer(r"-?\d+(\.\d+)?", text))
    if not found:
        return text
    number = random_.choice(found)
    odd = ("1" + "0" * 400, "1" + "0" * 5000, "-1", "0", "nan", "inf", "-inf", "1e999", "1e-999", "", "0x7f", "1_000")
    new = random_.choice(
        (*odd, "2147483648", "9" * 19, "0.5", "١٢", "\x1b[31m", "1e5", str(random_.choice(ODD_NUMBERS)))
    )
    return text[: number.start()] + new + text[number.end() :]


def _word_replaced(text: str, random_: random.Random, outside: Outside) -> str:
    found = list(re.finditer(r"[A-Za-z_][\w./-]*", text))
    if not found:
        return text
    word = random_.choice(found)
    new = random_.choice((*outside.paths, "x" * 5000, "\x1b[31mred\x07", "nan", "true", "[", "{", "é", "\u202e", "a b"))
    return text[: word.start()] + new + text[word.end() :]


def _lines_changed(text: str, random_: random.Random, outside: Outside) -> str:
    lines = text.splitlines(keepends=True) or [""]
    at, other = random_.randrange(len(lines)), random_.randrange(len(lines))
    how = random_.randrange(6)
    if how == 0:
        del lines[at]
    elif how == 1:
        lines[at:at] = [lines[at]] * random_.choice((1, 3, 3000))
    elif how == 2:
        lines[at], lines[other] = lines[other], lines[at]
    elif how == 3:
        lines[at] = "x" * random_.choice((1, 5000, 300_000)) + lines[at]
    elif how == 4:
        lines[at] = (
            random_.choice(("\t", "  ", "- ", "#", "\0", "\x1b[2J", "\ufeff", "{", "]", "'", "? ", "[net]\n"))
            + lines[at]
        )
    else:
        lines = [line.replace("\n", "\r\n") for line in lines]
    return "".join(lines)


def _encoded_otherwise(content: bytes, random_: random.Random) -> bytes:
    text = content.decode("utf-8", "replace")
    how = random_.randrange(5)
    if how < 3:
        return text.encode(("utf-16", "utf-32", "utf-8-sig")[how])
    return b"\xff" + content if how == 3 else text.replace("a", "\xe4").encode("latin-1", "replace")


def text_changed(content: bytes, random_: random.Random, outside: Outside) -> bytes:
    """A text of lines, words and numbers with one of them changed."""
    text = content.decode("utf-8", "surrogateescape")
    change = random_.choice((_number_replaced, _number_replaced, _word_replaced, _lines_changed, None))
    if change is None:
        return _encoded_otherwise(content, random_)
    return change(text, random_, outside).encode("utf-8", "surrogatepass" if "\ud800" in text else "surrogateescape")


BOMB = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{name}: &{name} [{','.join([f'*{before}'] * 9)}]\n" for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)
YAML_TEXTS = (
    *(
        BOMB,
        "&a [*a]\n",
        "a: &a {b: *a}\n",
        CODE + "\n",
        "!!python/name:os.system\n",
        "!!binary '\xff'\n",
        "\0",
        "%YAML 9\n---\n",
    ),
    *(
        "[" * 3000,
        "{a: " * 300,
        "--- 1\n--- 2\n",
        "? [a, b]\n: 1\n",
        "<<: 1\n",
        "!!set {a, b}\n",
        "*unknown\n",
        "- - - -\n",
        "null\n",
    ),
    *(
        "2020-13-45\n",
        "!!timestamp 9999-99-99\n",
        "!!int x\n",
        "!!float x\n",
        "190:20:30\n",
        "0b2\n",
        "\t\n",
        "a: b: c\n",
        "'\n",
    ),
)


def yaml_changed(content: bytes, random_: random.Random, outside: Outside) -> bytes:
    """A YAML document with another value in it, or with a trick of the format."""
    text = content.decode("utf-8", "surrogateescape")
    try:
        value = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError):
        return text_changed(content, random_, outside)
    how = random_.randrange(8)
    trick = random_.choice(YAML_TEXTS)
    if how == 0:
        return trick.encode()
    if how == 1:
        return (text + "\n" + trick).encode("utf-8", "surrogateescape")
    if how == 2:
        place = random_.choice(list(re.finditer(r": .*", text)) or [re.match("", text)])
        assert place is not None
        odd = (
            "&a [*a]",
            CODE,
            "!!str 1",
            "*x",
            "[" * 60,
            "|\n  x",
            "!!python/tuple [1]",
            "1e400",
            ".nan",
            "-.inf",
            "'\\x1b'",
        )
        return f"{text[: place.start()]}: {random_.choice(odd)}{text[place.end() :]}".encode("utf-8", "surrogateescape")
    try:
        dumped = yaml.safe_dump(changed_value(value, random_, outside), sort_keys=False, allow_unicode=how == 3)
    except RecursionError:
        return b"[" * 900
    return dumped.encode("utf-8", "surrogatepass")


JSON_TEXTS = (
    "[" * 200_000,
    '{"a":' * 100_000,
    "NaN",
    "[Infinity]",
    "1" + "0" * 5000,
    "null",
    '"\\ud800"',
    "{}",
    "[]",
    "\x1b",
    " ",
)


def json_changed(content: bytes, random_: random.Random, outside: Outside) -> bytes:
    """A JSON document, or lines of them, with another value in it, or a trick of the format."""
    text = content.decode("utf-8", "surrogateescape")
    how = random_.randrange(10)
    if how == 0:
        return random_.choice(JSON_TEXTS).encode()
    if how == 1:  # a key twice
        return re.sub(r'("\w+": ?)([^,{}\[\]]+)', r"\1\2, \1null", text, count=1).encode("utf-8", "surrogateescape")
    try:
        value = json.loads(text)
        return json.dumps(changed_value(value, random_, outside)).encode()
    except (ValueError, RecursionError):
        return text_changed(content, random_, outside)


def xml_changed(content: bytes, random_: random.Random, outside: Outside) -> bytes:
    """An XML document with an entity, deep nesting, or another text in it."""
    text = content.decode("utf-8", "surrogateescape")
    how = random_.randrange(6)
    if how > 2:
        return text_changed(content, random_, outside)
    if how == 0:
        entities = '<!ENTITY a "xxxxxxxxxx">' + "".join(
            f'<!ENTITY {name} "{f"&{before};" * 10}">' for before, name in zip("abcdefgh", "bcdefghi", strict=True)
        )
        text = f"<!DOCTYPE annotation [{entities}]>" + text.replace("<name>", "<name>&i;", 1)
    elif how == 1:
        path = random_.choice(outside.paths)
        text = f'<!DOCTYPE a [<!ENTITY x SYSTEM "{path}">]>' + text.replace("<name>", "<name>&x;", 1)
    else:
        levels = random_.choice((100, 100_000))
        text = text.replace("<object>", "<object>" + "<a>" * levels + "</a>" * levels, 1)
    return text.encode("utf-8", "surrogateescape")


# pictures


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
        struct.pack_into(code, head, field, min(largest, random_.choice((0, 1, 2, 3, 4, 16, 17, 2**31 - 1, largest))))
        chunks[0] = (b"IHDR", bytes(head))
    elif how == 2:
        del chunks[place]
    elif how == 3:
        chunks.insert(place, (name, body))
    elif how == 4:
        bomb = zlib.compress(bytes(50_000_000), 1)
        kind = random_.choice((b"zTXt", b"iCCP", b"iTXt", b"IDAT"))
        chunks.insert(
            1, (kind, bomb if kind == b"IDAT" else b"Comment\0" + (b"\1\0\0\0" if kind == b"iTXt" else b"\0") + bomb)
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
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load, save

    try:
        tensors = load(content)
        (length,) = struct.unpack_from("<Q", content)
        metadata = json.loads(content[8 : 8 + length]).get("__metadata__")
        name = random_.choice(sorted(tensors))
        changed = _changed_tensor(tensors[name], random_, outside)
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
    import io
    import zipfile

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


CHANGES: dict[str, tuple[Change, ...]] = {
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
    ".safetensors": (safetensors_changed, safetensors_changed, tensors_changed),
    ".pt": (torch_changed,),
    ".pth": (torch_changed,),
    ".onnx": (onnx_changed,),
}
"""Ending → what knows its format."""

SHARE_BLIND = 0.3
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
        content = change(content, random_, outside)
    return content


assert sys.getrecursionlimit() >= 1000, "nested values of 900 levels are written"
