"""The command `import`: converts a published policy to a policy file, or a YOLO checkpoint to a detector file."""

import argparse
from pathlib import Path
from typing import Any

from adaptiveisp.cli.exit_codes import DONE
from adaptiveisp.cli.options import add_command
from adaptiveisp.errors import UsageError


def add(commands: Any) -> None:
    """Adds the command to the parser."""
    parser = add_command(
        commands,
        "import",
        "convert a released checkpoint to a policy file, or a YOLO .pt to a detector file",
        "Converts a checkpoint of the released AdaptiveISP code or a POS-ISP policy to a policy file, or a checkpoint "
        "of the YOLOv3 or YOLOv5 repository to a detector file. Its kind is recognised by its content, and no code in "
        "it is run.",
    )
    text = "a .pth with agent_model (and value_model, where it is AdaptiveISP's), or a YOLO .pt"
    parser.add_argument("file", type=Path, metavar="FILE", help=text)
    parser.add_argument("--out", type=Path, required=True, metavar="FILE.safetensors", help="file to write")
    parser.add_argument("--overwrite", action="store_true", help="replace an existing file")
    parser.add_argument(
        "--preprocessing",
        choices=("raw", "auto-gain", "auto-exposure"),
        default="raw",
        help="stages before the modules of a POS-ISP policy: none (raw), auto-exposure's gains, or its curve too",
    )
    parser.set_defaults(command=import_checkpoint)


def import_checkpoint(options: argparse.Namespace) -> int:
    """Converts a released checkpoint to a policy file, or a detector's checkpoint to a detector file."""
    from adaptiveisp.detectors.yolo.checkpoint import holds_detector
    from adaptiveisp.utils.files import require_regular

    require_regular(options.file, UsageError, "give a checkpoint")
    if holds_detector(options.file):
        _require_raw(options)
        return _import_detector(options)
    return _import_policy(options)


def _require_raw(options: argparse.Namespace) -> None:
    if options.preprocessing != "raw":
        remedy = "leave --preprocessing out, or give a POS-ISP policy"
        raise UsageError(f"{options.file}: is no POS-ISP policy, and only those take --preprocessing; {remedy}")


def _import_policy(options: argparse.Namespace) -> int:
    from adaptiveisp.policies.checkpoint import import_released, read_published, save_policy
    from adaptiveisp.policies.pos_isp.checkpoint import NAME, import_pos_isp, is_pos_isp

    content = read_published(options.file)
    if is_pos_isp(content):
        header, network = import_pos_isp(options.file, content, options.preprocessing)
        _prepare(options)
        save_policy(options.out, header, {NAME: network})
        order = [header.modules[index] for index in network.order().modules]
        print(f"{options.out}: {header.origin}; order {', '.join(order)}")
        return DONE
    _require_raw(options)
    header, actor, critic = import_released(options.file, content)
    _prepare(options)
    save_policy(options.out, header, {"actor": actor, "critic": critic})
    numbers = sum(parameter.numel() for parameter in actor.parameters())
    print(f"{options.out}: {numbers:,} actor parameters, modules {', '.join(header.modules)}")
    return DONE


def _import_detector(options: argparse.Namespace) -> int:
    from adaptiveisp.detectors.detector_file import save_detector
    from adaptiveisp.detectors.yolo.checkpoint import load_ultralytics
    from adaptiveisp.utils.provenance import provenance

    network = load_ultralytics(options.file)
    _prepare(options)
    save_detector(options.out, network, provenance(0, {options.file.name: network.weights_sha256}))
    numbers = sum(parameter.numel() for parameter in network.parameters())
    strides = ", ".join(str(stride) for stride in network.strides)
    print(f"{options.out}: {numbers:,} weights, {len(network.class_names)} classes, strides {strides}")
    return DONE


def _prepare(options: argparse.Namespace) -> None:
    """Refuses to replace a file without --overwrite, and removes temporary files of killed processes."""
    from adaptiveisp.utils.files import remove_abandoned

    if options.out.exists() and not options.overwrite:
        raise UsageError(f"{options.out}: exists already; choose another --out or add --overwrite")
    remove_abandoned(options.out.parent)
