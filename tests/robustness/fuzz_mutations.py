"""How `tests.robustness.fuzz` damages files: blindly, in their bytes, and in values and texts.

Every choice comes from the generator that is handed in, so that seed and number of an input give the same file again.
"""

import json
import random
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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
        return changed_tensor(value, random_, outside)
    if isinstance(value, int | float) and not isinstance(value, bool) and random_.random() < 0.4:
        return random_.choice((-value, value + 1, value - 1, value * 1000, value + 0.5, str(value), [value]))
    return odd_value(random_, outside)


def changed_tensor(value: Any, random_: random.Random, outside: Outside) -> Any:
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
        CODE,
        "[" * 3000,
        "{a: " * 300,
        "%YAML 9\n---\n",
        "--- 1\n--- 2\n",
        "? [a, b]\n: 1\n",
        "- - - -\n",
        "'\n",
        "\t\n",
    ),
    *[
        "&a [*a]",
        "a: &a {b: *a}",
        "!!python/name:os.system",
        "!!binary 'ÿ'",
        "\x00",
        "<<: 1",
        "!!set {a, b}",
        "*unknown",
        "null",
    ],
    *["2020-13-45", "!!timestamp 9999-99-99", "!!timestamp x", "!!int x", "!!float x", "190:20:30", "0b2", "a: b: c"],
)
YAML_VALUES = (
    CODE,
    "[" * 60,
    "|\n  x",
    *["&a [*a]", "!!str 1", "*x", "!!python/tuple [1]", "1e400", ".nan", "-.inf", "'\\x1b'"],
)


def yaml_changed(content: bytes, random_: random.Random, outside: Outside) -> bytes:
    """A YAML document with another value in it, or with a trick of the format."""
    text = content.decode("utf-8", "surrogateescape")
    how = random_.randrange(8)
    trick = random_.choice(YAML_TEXTS)
    if how == 0:
        return trick.encode()
    if how == 1:
        return (text + "\n" + trick).encode("utf-8", "surrogateescape")
    if how == 2:
        place = random_.choice(list(re.finditer(r": .*", text)) or [re.match("", text)])
        assert place is not None
        return f"{text[: place.start()]}: {random_.choice(YAML_VALUES)}{text[place.end() :]}".encode(
            "utf-8", "surrogateescape"
        )
    value = changed_value(yaml.safe_load(text), random_, outside)
    dumped = yaml.safe_dump(value, sort_keys=False, allow_unicode=how == 3)
    return dumped.encode("utf-8", "surrogatepass")


JSON_TEXTS = (
    "[" * 200_000,
    '{"a":' * 100_000,
    "1" + "0" * 5000,
    "\x1b",
    " ",
    '"\\ud800"',
    *["NaN", "[Infinity]", "null", "{}", "[]"],
)


def json_changed(content: bytes, random_: random.Random, outside: Outside) -> bytes:
    """A JSON document, or lines of them, with another value in it, or a trick of the format."""
    text = content.decode("utf-8", "surrogateescape")
    how = random_.randrange(10)
    if how == 0:
        return random_.choice(JSON_TEXTS).encode()
    if how == 1:  # a key twice
        return re.sub(r'("\w+": ?)([^,{}\[\]]+)', r"\1\2, \1null", text, count=1).encode("utf-8", "surrogateescape")
    return json.dumps(changed_value(json.loads(text), random_, outside)).encode()


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
