"""The layouts that a data-set YAML can name, and how one becomes a data set."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from adaptiveisp.data.annotations import ParsedSet, SetConfig, SetOptions, is_class_list, read_lines
from adaptiveisp.data.dataset_yaml import read_content, read_set, split_spec
from adaptiveisp.data.formats import coco, folder, lod, nod, oneplus, pascalraw, rod, voc, yolo_txt
from adaptiveisp.data.labelled import LabelledRaws
from adaptiveisp.errors import DataError, UsageError
from adaptiveisp.raw.headerless import BayerHeader


class Layout(NamedTuple):
    """How the data sets of one kind are read.

    Attributes:
        defaults: what a YAML need not say.
        parse: reads the label files of a split.
        yolo_defaults: what a YAML with `annotations: yolo` need not say, where the layout comes in two kinds.
        header: facts about its raws.
    """

    defaults: SetOptions
    parse: Callable[[SetConfig], ParsedSet]
    yolo_defaults: SetOptions | None = None
    header: BayerHeader = BayerHeader()


LAYOUTS: dict[str, Layout] = {
    "yolo": Layout(yolo_txt.DEFAULTS, yolo_txt.parse),
    "voc": Layout(voc.DEFAULTS, voc.parse),
    "coco": Layout(coco.DEFAULTS, coco.parse),
    "lod": Layout(lod.DEFAULTS, lod.parse, lod.YOLO_DEFAULTS),
    "oneplus": Layout(oneplus.DEFAULTS, oneplus.parse, oneplus.YOLO_DEFAULTS),
    "rod": Layout(rod.DEFAULTS, rod.parse, header=rod.HEADER),
    "nod": Layout(nod.DEFAULTS, nod.parse),
    "pascalraw": Layout(pascalraw.DEFAULTS, pascalraw.parse),
    "folder": Layout(folder.DEFAULTS, folder.parse),
}


def read_config(data: Path) -> SetConfig:
    """What a data-set YAML says, over the defaults of its layout; without `layout` it is Ultralytics' kind.

    Raises:
        UsageError: the layout or a key does not exist, or a value does not fit.
        DataError: the file or the root is missing or malformed.
    """
    content = read_content(data)
    name = content.get("layout", "yolo")
    layout = LAYOUTS.get(name) if isinstance(name, str) else None
    if layout is None:
        known = ", ".join(LAYOUTS)
        shown = repr(name[:40]) if isinstance(name, str) else "of another kind than text"
        raise UsageError(f"{split_spec(data)[0]}: layout {shown} does not exist; choose one of {known}")
    is_yolo = content.get("annotations") == "yolo" and layout.yolo_defaults is not None
    defaults = layout.yolo_defaults if is_yolo and layout.yolo_defaults is not None else layout.defaults
    config = read_set(data, content, name, defaults, layout.header)
    kinds = {layout.defaults.annotations, *([layout.yolo_defaults.annotations] if layout.yolo_defaults else [])}
    if config.options.annotations not in kinds:
        known = " or ".join(sorted(kinds))
        raise UsageError(f"{config.path}: layout {name} has annotations {known}, not {config.options.annotations}")
    return config


def open_set(data: Path, limit: int = 0, labelled: bool = True, strict: bool = True) -> LabelledRaws:
    """The data set of a YAML, of the split that DATA or the YAML names.

    Args:
        data: the YAML, with `:SPLIT` behind it or without.
        limit: the first so many photos only; 0 takes all.
        labelled: False takes the images without classes and annotations.
        strict: raise the first label that makes no sense, unless the YAML drops those.

    Raises:
        DataError, UsageError: see `read_config` and the layout's `parse`.
    """
    return open_config(read_config(data), limit, labelled, strict)


def open_config(config: SetConfig, limit: int = 0, labelled: bool = True, strict: bool = True) -> LabelledRaws:
    """The data set that a configuration describes; see `open_set`."""
    if not labelled:
        config = replace(config, options=replace(config.options, missing_labels="background"))
    return LabelledRaws(config, LAYOUTS[config.layout].parse(config), limit, labelled, strict)


def splits_of(config: SetConfig) -> tuple[str, ...]:
    """The splits of a data set: those that the YAML lists under `splits`, else those that there are; often none.

    A list that only joins others, such as AdaptiveISP's test.txt of LOD, counts too: `splits` leaves it out. One that
    says which images show a class, as those beside Pascal VOC's splits, does not count.
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
    """Refuses a set of a layout without labels, where they are needed.

    Raises:
        DataError: names it.
    """
    if dataset.config.options.annotations == "none":
        raise DataError(f"{dataset.name}: layout {dataset.config.layout} has no labels; use train --labels teacher")
