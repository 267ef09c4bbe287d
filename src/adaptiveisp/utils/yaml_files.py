"""Reads YAML files: plain values only, of limited size, depth and number of aliases.

A few hundred bytes of YAML can stand for gigabytes, since an alias repeats the value of its anchor, and aliases nest.
PyYAML does not expand them while it reads, but code that prints, copies or compares the value later does.
"""

from pathlib import Path
from typing import Any

import yaml

from adaptiveisp.errors import shown
from adaptiveisp.utils.files import require_regular

LARGEST_FILE = 16_000_000
"""Most bytes of a file; a list of a million class names fits."""
LARGEST_VALUE = 1_000_000
"""Most values that a document may stand for; each alias counts with all values that it repeats."""
MOST_ALIASES = 1_000
"""Most aliases of a document. A document that is written by hand has a handful."""
DEEPEST = 50
"""Most levels of nesting; settings have three."""


class YamlError(ValueError):
    """The text is not YAML of plain values, or it exceeds a limit; the message is one line."""


def parse_yaml(text: str) -> Any:
    """Parses a YAML document; the value of an empty one is None.

    >>> parse_yaml("{size: 416, names: [cat, dog]}")
    {'size': 416, 'names': ['cat', 'dog']}

    Raises:
        YamlError: it cannot be parsed, names a Python object, or exceeds one of the limits of this module.
    """
    try:
        loader = _Loader(text)
        try:
            node = loader.get_single_node()
            if node is None:
                return None
            loader.measure(node)
            return loader.construct_document(node)
        finally:
            loader.dispose()
    except YamlError:
        raise
    except yaml.MarkedYAMLError as error:
        where = f"line {error.problem_mark.line + 1}: " if error.problem_mark is not None else ""
        raise YamlError(f"{where}{error.problem or error.context or 'no YAML'}") from None
    # PyYAML also raises errors of Python's conversions, and RecursionError on deep nesting.
    except Exception as error:
        reason = next(iter(str(error).splitlines()), "") or type(error).__name__
        if isinstance(error, AttributeError | TypeError | LookupError):  # their messages name PyYAML's own variables
            reason = "a value does not fit its tag, such as !!timestamp"
        raise YamlError(reason) from None


def read_yaml(path: Path, error: type[Exception], remedy: str) -> Any:
    """Reads and parses a YAML file, see `parse_yaml`.

    Args:
        path: the file, UTF-8 with a byte-order mark or without.
        error: class of the errors.
        remedy: what the user can do, appended to messages.
    """
    require_regular(path, error, remedy)
    try:
        with open(path, "rb") as stream:
            content = stream.read(LARGEST_FILE + 1)
    except FileNotFoundError:
        raise error(f"{path}: no such file; {remedy}") from None
    except (OSError, ValueError) as cause:
        reason = getattr(cause, "strerror", None) or str(cause)
        raise error(f"{path}: cannot be read ({reason}); {remedy}") from cause
    if len(content) > LARGEST_FILE:
        raise error(f"{path}: is larger than {LARGEST_FILE // 1_000_000} MB, which is too large; {remedy}")
    try:
        return parse_yaml(content.decode("utf-8-sig"))
    except UnicodeDecodeError as cause:
        raise error(f"{path}: is not UTF-8 text (byte {cause.start}); {remedy}") from cause
    except YamlError as cause:
        raise error(f"{path}: cannot be read as YAML ({cause}); {remedy}") from cause


class _Loader(yaml.SafeLoader):
    """PyYAML's loader of plain values, with limits on depth and on aliases."""

    def __init__(self, text: str):
        super().__init__(text)
        self._depth = 0
        self._aliases = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        """Composes a node, counting levels and aliases."""
        if self.check_event(yaml.AliasEvent):
            self._aliases += 1
            if self._aliases > MOST_ALIASES:
                raise YamlError(f"has more than {MOST_ALIASES} aliases (*name); write the values out")
        self._depth += 1
        if self._depth > DEEPEST:
            raise YamlError(f"is nested more than {DEEPEST} levels deep")
        try:
            return super().compose_node(parent, index)
        finally:
            self._depth -= 1

    def measure(self, root: Any) -> None:
        """Refuses a document whose aliases stand for too many values or levels, or for a value that contains them."""
        sizes: dict[int, tuple[int, int]] = {}
        open_nodes: set[int] = set()

        def measured(node: Any) -> tuple[int, int]:
            """The number of values and of levels that a node stands for."""
            key = id(node)
            if key in open_nodes:
                raise YamlError("an alias (*name) refers to a value that contains it")
            if key not in sizes:
                open_nodes.add(key)
                children = []
                if isinstance(node, yaml.SequenceNode):
                    children = node.value
                elif isinstance(node, yaml.MappingNode):
                    names = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
                    if len(set(names)) < len(names):
                        twice = next(name for name in names if names.count(name) > 1)
                        raise YamlError(f"line {node.start_mark.line + 1}: the key {shown(twice)} occurs twice")
                    children = [part for pair in node.value for part in pair]
                found = [measured(child) for child in children]
                size = 1 + sum(values for values, _ in found)
                sizes[key] = size, 1 + max((levels for _, levels in found), default=0)
                open_nodes.discard(key)
                if size > LARGEST_VALUE:
                    raise YamlError(f"its aliases (*name) stand for more than {LARGEST_VALUE:,} values; write them out")
                if sizes[key][1] > DEEPEST:
                    raise YamlError(f"is nested more than {DEEPEST} levels deep")
            return sizes[key]

        measured(root)
