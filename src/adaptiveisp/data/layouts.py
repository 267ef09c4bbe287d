"""The layouts that a data-set YAML can name, and how a data set is opened by its layout.

A user's own layout is registered by `register_dataset`, or declared by an installed package as an entry point in the
group `adaptiveisp.datasets`; a YAML then names it as `layout: NAME`.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from adaptiveisp.data.annotations import ParsedSet, SetConfig, SetOptions, is_class_list, read_lines
from adaptiveisp.data.dataset_yaml import read_content, read_set, split_spec
from adaptiveisp.data.formats import coco, folder, lod, nod, oneplus, pascalraw, rod, voc, yolo_txt
from adaptiveisp.data.labelled import LabelledRaws
from adaptiveisp.errors import AdaptiveISPError, DataError, UsageError, logger, shown
from adaptiveisp.raw.headerless import BayerHeader
from adaptiveisp.utils.own_code import reason_of
from adaptiveisp.utils.registry import Registry

Parser = Callable[[SetConfig], ParsedSet]
"""Function that reads the label files of a split: the settings → the images with their objects."""


@dataclass(frozen=True)
class Layout:
    """The layout of a kind of data sets: defaults and parser.

    Attributes:
        defaults: values of the keys that a YAML leaves out.
        parse: function that reads the label files of a split.
        yolo_defaults: the same as `defaults` for a YAML with `annotations: yolo`, if the layout has two kinds of label
            files; None if it has one.
        header: facts about its raws, which the YAML and the raws' sidecars can override.
        own_options: keys of `layout-options` in a YAML, which only `parse` uses.
    """

    defaults: SetOptions
    parse: Parser
    yolo_defaults: SetOptions | None = None
    header: BayerHeader = field(default_factory=BayerHeader)
    own_options: tuple[str, ...] = ()


def _as_layout(origin: str, value: object) -> Layout:
    """The layout that an object stands for; a function becomes the parser of a layout with the usual defaults.

    Raises:
        UsageError: the object is neither a layout nor a function.
    """
    if isinstance(value, Layout):
        return value
    if not callable(value):
        kind = type(value).__name__
        raise UsageError(f"{origin}: is of type {kind}; give a Layout, or a function from SetConfig to ParsedSet")
    return Layout(SetOptions(), value)


LAYOUTS = Registry[Layout]("layout", "adaptiveisp.datasets", check=_as_layout)
"""Every layout by its name."""
for _name, _layout in {
    "yolo": Layout(yolo_txt.DEFAULTS, yolo_txt.parse),
    "voc": Layout(voc.DEFAULTS, voc.parse),
    "coco": Layout(coco.DEFAULTS, coco.parse),
    "lod": Layout(lod.DEFAULTS, lod.parse, lod.YOLO_DEFAULTS),
    "oneplus": Layout(oneplus.DEFAULTS, oneplus.parse, oneplus.YOLO_DEFAULTS),
    "rod": Layout(rod.DEFAULTS, rod.parse, header=rod.HEADER),
    "nod": Layout(nod.DEFAULTS, nod.parse),
    "pascalraw": Layout(pascalraw.DEFAULTS, pascalraw.parse),
    "folder": Layout(folder.DEFAULTS, folder.parse),
}.items():
    LAYOUTS.register(_name, _layout)


def register_dataset(name: str, layout: Layout | Parser) -> Layout:
    """Registers a layout, which data-set YAMLs can then name as `layout: NAME` while this process runs.

    For the command line, a package declares its layout as an entry point in the group `adaptiveisp.datasets`.

    Args:
        name: letters, digits, "-" and "_", at most 64.
        layout: the layout, or only its parser, a function from `SetConfig` (root folder, split, options) to
            `ParsedSet`. An exception of the parser is reported as an error of the data set.

    Raises:
        UsageError: the name is taken or invalid, or `layout` is neither a layout nor a function.
    """
    return LAYOUTS.register(name, layout)  # type: ignore[arg-type]  # the registry's check makes it a layout


def read_config(data: Path) -> SetConfig:
    """Reads a data-set YAML with the defaults of its layout; a YAML without `layout` is in the format of Ultralytics.

    Raises:
        UsageError: the layout or a key does not exist, or a value does not fit.
        DataError: the file or the root is missing or malformed.
    """
    content = read_content(data)
    path, name = split_spec(data)[0], content.get("layout", "yolo")
    if not isinstance(name, str):
        raise UsageError(f"{path}: layout {shown(name)} is no text; choose one of {', '.join(LAYOUTS.names())}")
    try:
        layout = LAYOUTS.find(name)
    except UsageError as error:
        raise UsageError(f"{path}: {error}") from None
    is_yolo = content.get("annotations") == "yolo" and layout.yolo_defaults is not None
    defaults = layout.yolo_defaults if is_yolo and layout.yolo_defaults is not None else layout.defaults
    config = read_set(data, content, name, defaults, layout.header)
    kinds = {layout.defaults.annotations, *([layout.yolo_defaults.annotations] if layout.yolo_defaults else [])}
    if config.options.annotations not in kinds:
        known = " or ".join(sorted(kinds))
        raise UsageError(f"{config.path}: layout {name} has annotations {known}, not {config.options.annotations}")
    unknown = [key for key in config.options.layout_options if key not in layout.own_options]
    if unknown:
        known = f"it knows {', '.join(layout.own_options)}" if layout.own_options else "it knows none"
        raise UsageError(f"{config.path}: layout {name} has no option {shown(unknown[0])} of its own; {known}")
    return config


def open_set(data: Path, limit: int = 0, labelled: bool = True, strict: bool = True) -> LabelledRaws:
    """Opens the data set of a YAML, of the split that DATA or the YAML names.

    Args:
        data: the YAML, with or without `:SPLIT` at the end.
        limit: number of photos to keep from the start; 0 keeps all.
        labelled: whether to use classes and annotations.
        strict: whether to raise the first invalid label, unless the YAML drops those.

    Raises:
        DataError, UsageError: see `read_config` and the layout's `parse`.
    """
    return open_config(read_config(data), limit, labelled, strict)


def open_config(config: SetConfig, limit: int = 0, labelled: bool = True, strict: bool = True) -> LabelledRaws:
    """Opens the data set that a configuration describes; see `open_set`."""
    if not labelled:
        config = replace(config, options=replace(config.options, missing_labels="background"))
    return LabelledRaws(config, _parsed(config), limit, labelled, strict)


def _parsed(config: SetConfig) -> ParsedSet:
    """The label files of a split, read by the layout's parser.

    Raises:
        DataError: the label files cannot be used, or the code of a layout from outside the package fails.
    """
    origin = f"{config.path}: layout {config.layout}"
    try:
        parsed: Any = LAYOUTS.find(config.layout).parse(config)
    except AdaptiveISPError:
        raise
    except Exception as error:  # raised by the code of a layout from outside the package
        logger.debug("%s", origin, exc_info=error)
        raise DataError(f"{origin}: {reason_of(error)}; correct the code of the layout; -v shows where") from error
    if not isinstance(parsed, ParsedSet):
        raise DataError(f"{origin}: its parser returned {type(parsed).__name__}; return a ParsedSet")
    return parsed


def splits_of(config: SetConfig) -> tuple[str, ...]:
    """The splits of a data set: those under `splits` in the YAML, otherwise those that are found, which may be none.

    A list that joins other splits, such as test.txt of AdaptiveISP's LOD, is found as a split too; the key `splits` can
    leave it out. A list of the images that show a class, as beside the splits of Pascal VOC, is not a split.
    """
    options = config.options
    if options.splits or options.split:
        return options.splits or (options.split,)
    named = yolo_txt.splits(config)
    pattern = options.labels if "{split}" in options.labels else options.list
    if named or "{split}" not in pattern:
        return named
    path = config.root / pattern
    before, _, after = path.name.partition("{split}")
    names = sorted(found.name for found in path.parent.glob("*") if found.is_file())
    return tuple(
        name[len(before) : len(name) - len(after)]
        for name in names
        if len(name) > len(before + after) and name.startswith(before) and name.endswith(after)
        if pattern != options.list or not is_class_list(read_lines(path.with_name(name), "list of images"))
    )


def require_labels(dataset: LabelledRaws) -> None:
    """Refuses a data set whose layout has no labels.

    Raises:
        DataError: the layout has no labels.
    """
    if dataset.config.options.annotations == "none":
        raise DataError(f"{dataset.name}: layout {dataset.config.layout} has no labels; use train --labels teacher")
