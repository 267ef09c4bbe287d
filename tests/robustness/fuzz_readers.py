"""The readers that `tests.robustness.fuzz` tries: for each a small valid input and how the package reads it.

A reader also looks at what it got: values that are finite, boxes in order. `make` gets an empty folder; `read` runs in
it, and may raise nothing but an AdaptiveISPError.
"""

import importlib.util
import json
import math
import random
import unicodedata
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from PIL import Image

from adaptiveisp.data.dataset import Dataset
from adaptiveisp.data.opening import open_dataset, open_unlabelled
from adaptiveisp.data.splits import open_parts
from adaptiveisp.detectors.class_names import COCO_80
from adaptiveisp.errors import AdaptiveISPError
from adaptiveisp.raw.reader import BayerHeader, camera_render, read_raw
from adaptiveisp.types import RawImage, Targets
from tests.robustness.fuzz_formats import damaged
from tests.robustness.fuzz_mutations import Outside
from tests.support import darknet_cfg, layouts
from tests.support import odd_dngs as odddng

WIDTH, HEIGHT = 64, 48
LONGEST_MESSAGE = 1000


class Wrong(Exception):
    """A reader took an input and made something of it that makes no sense."""


@dataclass(frozen=True)
class Reader:
    """One way into the package.

    Attributes:
        name: for the table, and for `--readers`.
        make: writes the valid input into an empty folder.
        read: reads it, in that folder.
        files: those that are damaged, as glob patterns; all where empty.
        needs: optional libraries without which it is left out.
        change: damages the folder, where that takes more than changing one file.
        slow: left to the long tests, since making or reading its valid input takes seconds.
    """

    name: str
    make: Callable[[Path], Any]
    read: Callable[[], Any]
    files: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()
    change: Callable[[Path, random.Random, Outside], None] | None = None
    slow: bool = False

    @property
    def missing(self) -> tuple[str, ...]:
        """The libraries that it needs and that are not there."""
        return tuple(name for name in self.needs if importlib.util.find_spec(name) is None)

    def damage(self, folder: Path, random_: random.Random, outside: Outside) -> None:
        """Damages the valid input in a folder."""
        if self.change is not None and random_.random() < 0.5:
            self.change(folder, random_, outside)
            return
        patterns = self.files or ("**/*",)
        found = sorted({path for pattern in patterns for path in folder.glob(pattern) if path.is_file()})
        path = random_.choice(found)
        how = random_.randrange(60)
        content = path.read_bytes()
        if how == 0:
            path.unlink()
        elif how == 1:
            path.unlink()
            path.mkdir()
        elif how == 2:
            path.write_bytes(b"")
        else:
            path.write_bytes(damaged(path.name, content, random_, outside))


def require(condition: bool, text: str) -> None:
    """Raises `Wrong` unless the condition holds."""
    if not condition:
        raise Wrong(text)


# raw files


def look_at_raw(raw: RawImage) -> None:
    """Refuses a raw whose numbers contradict each other."""
    require(bool(np.isfinite(raw.data).all()), "pixels that are not finite")
    require(raw.data.ndim == (2 if raw.pattern else 3), f"pattern {raw.pattern} with shape {raw.data.shape}")
    require(all(math.isfinite(black) for black in raw.black_level), "a black level that is not finite")
    require(math.isfinite(raw.white_level) and raw.white_level > max(raw.black_level), "white at or below black")


def read_one(name: str, header: BayerHeader | None = None) -> Callable[[], None]:
    """Reads a raw file, and develops it as LibRaw does."""

    def read() -> None:
        raw = read_raw(Path(name), header)
        look_at_raw(raw)
        if raw.pattern is None:  # LibRaw develops mosaics only
            return
        rendered = camera_render(raw)
        require(rendered.dtype == np.uint8 and rendered.ndim == 3, "a rendering of another kind")

    return read


def dng_maker(**changes: Any) -> Callable[[Path], Path]:
    """Writes a DNG with these changes."""
    return lambda folder: odddng.write_odd_dng(folder / "x.dng", odddng.mosaic(odddng.scene()), **changes)


def camera_file(folder: Path) -> None:
    """A DNG with the ending of a camera's file."""
    dng_maker()(folder).rename(folder / "x.nef")


def tiled_dng(folder: Path) -> Path:
    """A DNG of four tiles, big-endian."""
    pixels = odddng.mosaic(odddng.scene())
    tiles = [pixels[y : y + 32, x : x + 32] for y in (0, 32) for x in (0, 32)]
    padded = [np.pad(tile, ((0, 32 - len(tile)), (0, 0))).astype(">u2").tobytes() for tile in tiles]
    sides = {"t278": None, "t322": (4, [32]), "t323": (4, [32])}
    return odddng.write_odd_dng(folder / "x.dng", pixels, padded, tiled=True, order=">", **sides)


def linear_dng(folder: Path) -> Path:
    """A DNG of demosaiced RGB."""
    return odddng.write_odd_dng(folder / "x.dng", np.round(512 + odddng.scene() * 15000).astype(np.uint16))


def odd_dng(folder: Path, random_: random.Random, outside: Outside) -> None:
    """A DNG that is well-formed, with some tags of other types and values, or none."""
    pixels = odddng.mosaic(odddng.scene())
    changes: dict[str, Any] = {}
    for _ in range(random_.choice((1, 1, 2, 3))):
        tag = random_.choice(
            (*odddng.tags_of(pixels), 273, 279, 322, 323, 339, 274, 50829, 50715, 50712, 50713, 50719, 317, 33421)
        )
        kind = random_.choice((1, 3, 3, 4, 4, 5, 9, 10, 12, 16))
        count = random_.choice((0, 1, 1, 2, 3, 4, 9, 36, 300)) * (2 if kind in (5, 10) else 1)
        top = {1: 255, 3: 2**16 - 1, 9: 2**31 - 1, 10: 2**31 - 1, 16: 2**64 - 1}.get(kind, 2**32 - 1)
        small = random_.choice((True, False))
        values = [random_.choice((0, 1, 2, 3, 8) if small else (0, 1, 16, 255, top, top // 2)) for _ in range(count)]
        changes[f"t{tag}"] = None if random_.randrange(5) == 0 else (kind, values)
    side = random_.choice((0, 0, 4, 6, 8))
    if side:  # a pattern of another size, of two, three or four colours
        changes |= {"t33421": (3, [side, side]), "t33422": (1, [random_.randrange(4) for _ in range(side * side)])}
    if random_.randrange(3) == 0:
        changes["t259"] = (3, [random_.choice((0, 2, 5, 6, 7, 8, 34713, 34892, 52546, 65535))])
    segments = None
    if random_.randrange(3) == 0:
        segments = [random_.randbytes(random_.randrange(200)) for _ in range(random_.randrange(5))]
    big, order = random_.randrange(4) == 0, random_.choice("<<>")
    odddng.write_odd_dng(folder / "x.dng", pixels, segments, random_.randrange(4) == 0, order, big, **changes)


def plain_tiff(folder: Path) -> Path:
    """A TIFF of 16-bit RGB."""
    dng_only = (50706, 50707, 50708, 50714, 50717, 50721, 50778, 50728)
    pixels = np.round(odddng.scene() * 15000).astype(np.uint16)
    changes = {f"t{tag}": None for tag in dng_only} | {"t262": (3, [2])}
    return odddng.write_odd_dng(folder / "x.tif", pixels, **changes)


def mosaic_png(folder: Path) -> None:
    """A PNG of a mosaic with a sidecar."""
    Image.fromarray(layouts.mosaic(1)).save(folder / "x.png")
    (folder / "x.png.yaml").write_text("raw-pattern: RGGB\nraw-bits: 12\nraw-black: 0\n")


def npy(folder: Path) -> None:
    """An array of a mosaic with a sidecar."""
    np.save(folder / "x.npy", layouts.mosaic(1))
    (folder / "x.npy.yaml").write_text("raw-pattern: RGGB\nraw-bits: 12\nraw-black: [0, 0, 0, 0]\n")


def npz(folder: Path) -> None:
    """A stack of mosaics with its facts."""
    stack = np.stack([layouts.mosaic(number) for number in range(2)])
    np.savez_compressed(folder / "x.npz", raw=stack, pattern="RGGB", black=[0, 0, 0, 0], white=4095)


def pgm(folder: Path) -> None:
    """Two mosaics one behind the other."""
    head = f"P5\n# a camera\n{WIDTH} {HEIGHT}\n4095\n".encode()
    (folder / "x.pgm").write_bytes(b"".join(head + layouts.mosaic(number).astype(">u2").tobytes() for number in (1, 2)))


def exr(folder: Path) -> None:
    """Linear RGB, which compresses."""
    import OpenEXR

    pixels = np.ascontiguousarray(odddng.scene().astype(np.float16))
    how = {"compression": OpenEXR.ZIP_COMPRESSION, "type": OpenEXR.scanlineimage}
    OpenEXR.File(how, {"RGB": pixels}).write(str(folder / "x.exr"))


def recording(plugin: str) -> Callable[[Path], None]:
    """A recording of ROS 2 in one of its two kinds of files."""

    def make(folder: Path) -> None:
        from rosbags.rosbag2 import StoragePlugin, Writer
        from rosbags.typesys import Stores, get_typestore

        store = get_typestore(Stores.ROS2_HUMBLE)
        kind, data = "sensor_msgs/msg/Image", np.frombuffer(layouts.mosaic(1).astype("<u2").tobytes(), np.uint8)
        header = store.types["std_msgs/msg/Header"](store.types["builtin_interfaces/msg/Time"](1, 2), "camera")
        with Writer(folder / "bag", version=9, storage_plugin=StoragePlugin[plugin]) as writer:
            connection = writer.add_connection("/image", kind, typestore=store)
            message = store.types[kind](header, HEIGHT, WIDTH, "bayer_rggb16", 0, 2 * WIDTH, data)
            writer.write(connection, 10**9, store.serialize_cdr(message, kind))

    return make


def read_recording() -> None:
    """Reads the images of a recording as a stream does."""
    from adaptiveisp.raw.reader import raw_in_memory
    from adaptiveisp.streaming.sources import open_source

    for frame in open_source("bag"):
        look_at_raw(raw_in_memory(frame.raw, frame.header))


def headerless(sidecar: str) -> Callable[[Path], None]:
    """Bayer values without a header, with a sidecar where it has a name."""

    def make(folder: Path) -> None:
        (folder / "x.raw").write_bytes(layouts.mosaic(1).astype("<u2").tobytes())
        if sidecar:
            text = f"raw-size: {WIDTH}x{HEIGHT}\nraw-bits: 12\nraw-pattern: GRBG\nraw-black: 16\nraw-white: 4000\n"
            (folder / sidecar).write_text(text)

    return make


FLAGS = BayerHeader(WIDTH, HEIGHT, 12, "RGGB", black=0)


# pipelines, policies, runs, recipes, costs


def pipeline(folder: Path) -> None:
    """A pipeline of several modules."""
    stages = [{"module": "exposure", "params": {"ev": 1.5}}, {"module": "gamma", "params": {"gamma": 0.5}}]
    content = {"version": 1, "module_set": "extended", "start": "raw", "stages": stages, "note": {"by": "hand"}}
    (folder / "p.json").write_text(json.dumps(content))


def read_pipeline() -> None:
    """Reads a pipeline as a file and as a policy, and runs it."""
    from adaptiveisp.isp.pipeline import Pipeline
    from adaptiveisp.policies.registry import load_policy

    policy = load_policy("p.json")
    require(bool(policy.name), "a policy without a name")
    image = Pipeline.load(Path("p.json")).render(torch.full((1, 3, 16, 16), 0.2))
    require(bool(image.isfinite().all()), "an image that is not finite")


def sequence_policy(folder: Path) -> None:
    """The smallest policy that is shipped."""
    import adaptiveisp

    source = Path(adaptiveisp.__file__).parent / "policies/assets/pretrained" / "coco-fast.safetensors"
    (folder / "p.safetensors").write_bytes(source.read_bytes())


def stepwise_policy(folder: Path) -> None:
    """A step-wise policy of two modules."""
    from adaptiveisp.isp.registry import PAPER
    from adaptiveisp.policies.checkpoint import ACTOR_CRITIC, PolicyHeader, save_policy
    from adaptiveisp.policies.stepwise.networks import Actor

    modules = PAPER[:2]
    header = PolicyHeader(ACTOR_CRITIC, "paper", tuple(module.name for module in modules))
    save_policy(folder / "p.safetensors", header, {"actor": Actor(modules)})


def read_policy() -> None:
    """Loads a policy and lets it plan."""
    from adaptiveisp.policies.registry import load_policy

    load_policy("p.safetensors")


def released(folder: Path) -> None:
    """A checkpoint of the released code in little: each tensor is one stored value that is repeated."""
    from adaptiveisp.isp.registry import modules_of
    from adaptiveisp.policies import checkpoint
    from adaptiveisp.policies.stepwise.networks import Actor, Critic

    modules = modules_of(checkpoint.RELEASED_SET)
    names = checkpoint._encoder_names("feature_extractor", "parameter_encoder")
    names |= checkpoint._encoder_names("action_selection", "selection_encoder")
    names |= checkpoint._head_names("", "selection_head.", "fc2")
    for module in modules:
        names |= checkpoint._head_names(f"{module.short}.", f"parameter_heads.{module.name}.", "fc_filter")
    critic = checkpoint._encoder_names("feature_extractor", "encoder") | checkpoint._head_names("", "head.", "fc2")

    def little(network: torch.nn.Module, renamed: dict[str, str]) -> dict[str, torch.Tensor]:
        state = network.state_dict()
        return {key: torch.zeros((), dtype=state[own].dtype).expand(state[own].shape) for key, own in renamed.items()}

    content = {"agent_model": little(Actor(modules), names), "value_model": little(Critic(len(modules)), critic)}
    torch.save({**content, "iter": 7}, folder / "r.pth")


def read_released() -> None:
    """Imports a released checkpoint."""
    from adaptiveisp.policies.checkpoint import import_released

    _, actor, _ = import_released(Path("r.pth"))
    require(all(bool(value.isfinite().all()) for value in actor.parameters()), "weights that are not finite")


def pos_isp(folder: Path) -> None:
    """A POS-ISP policy in little: each tensor is one stored value that is repeated."""
    from adaptiveisp.policies.pos_isp.checkpoint import NAMES
    from adaptiveisp.policies.pos_isp.networks import PosIspNetwork

    state = PosIspNetwork().state_dict()
    agent = {theirs: torch.zeros(()).expand(state[ours].shape) for theirs, ours in NAMES.items()}
    torch.save({"iter": 7, "agent_model": agent}, folder / "p.pth")


def read_pos_isp() -> None:
    """Imports a POS-ISP policy."""
    from adaptiveisp.policies.pos_isp.checkpoint import import_pos_isp

    _, network = import_pos_isp(Path("p.pth"))
    require(all(bool(value.isfinite().all()) for value in network.parameters()), "weights that are not finite")


def run_folder(*arguments: str) -> Callable[[Path], None]:
    """A training run that was stopped half-way."""

    def make(folder: Path) -> None:
        from tests.support.photos import labelled_photos
        from tests.support.training_runs import adaptiveisp, train_arguments

        labelled_photos(folder, n=1)
        assert adaptiveisp(*train_arguments("run", 8, ()), *arguments) == 0
        config = folder / "run" / "config.yaml"
        config.write_text(config.read_text().replace("budget: 8", "budget: 48"))

    return make


def read_run() -> None:
    """Takes a run up again."""
    from adaptiveisp.training.runs import resumed_run
    from tests.support.fake_detector import RedDetector

    run = resumed_run(Path("run"), lambda name: RedDetector())
    run.close()
    from adaptiveisp.policies.registry import load_policy

    load_policy("run")


def recipe(folder: Path) -> None:
    """The options and settings of a run."""
    content = {
        "train": {"data": "train.json", "images": "images", "method": "sequence", "budget": 100, "light": "mixed"},
        "settings": {"horizon": 2, "batch": 2, "size": 64, "expert_modules": ["gamma", "exposure"], "modules": []},
    }
    (folder / "recipe.yaml").write_text(yaml.safe_dump(content))


def read_recipe() -> None:
    """Reads a recipe as `train --config` does."""
    from adaptiveisp.training.config import read_config, resolve

    resolve(*read_config(Path("recipe.yaml")), origin="recipe.yaml")


def costs(folder: Path) -> None:
    """A table of costs."""
    from adaptiveisp.isp.costs import save_costs
    from adaptiveisp.isp.registry import EXTENDED, HELPERS

    save_costs(folder / "costs.json", {module.name: 1.5 for module in (*EXTENDED, *HELPERS)}, 224, {"cpu": "some"})


def read_costs() -> None:
    """Reads a table of costs."""
    from adaptiveisp.isp.costs import load_costs

    require(all(0 <= value < math.inf for value in load_costs(Path("costs.json")).values()), "a cost below 0")


# data sets


def look_at_set(dataset: Dataset) -> None:
    """Reads a data set's samples, and refuses labels that make no sense."""
    for sample in list(dataset.samples)[:3]:
        for label in sample.annotations:
            numbers = [float(value) for value in (*label.bbox, label.area)]
            require(all(map(math.isfinite, numbers)), f"the box {numbers}")
            require(label.category_id in dataset.categories, f"the class {label.category_id} is unknown")
        try:
            look_at_raw(dataset.read(sample))
        except AdaptiveISPError as error:
            check_message(str(error))


def check_message(text: str) -> None:
    """Refuses a message that is no short printable line, or that speaks of a surprise."""
    require(not fault_of_message(text), f"{fault_of_message(text)}: {text[:300]!r}")
    require(": unexpected " not in text, text[:500])


def fault_of_message(text: str) -> str:
    """What is wrong with the form of a message; "" for nothing."""
    if len(text) > LONGEST_MESSAGE:
        return f"a message of {len(text)} characters"
    odd = next((character for character in text if unicodedata.category(character) in ("Cc", "Zl", "Zp", "Cs")), "")
    return f"a message with the control character {odd!r}" if odd else ""


def set_reader(data: str, images: str | None = None) -> Callable[[], None]:
    """Opens a data set for training, without its labels, and as `doctor` does."""

    def read() -> None:
        from adaptiveisp.data.validation import validate_dataset

        folder = Path(images) if images else None
        errors = []
        for open_ in (open_dataset, open_unlabelled):
            try:
                look_at_set(open_(Path(data), folder))
            except AdaptiveISPError as error:
                errors.append(error)
        found = validate_dataset(open_parts(Path(data.removesuffix(":train")), folder), COCO_80, "the detector")
        for finding in found.findings:
            check_message(finding.text)
        if errors:
            raise errors[0]

    return read


def small_coco(folder: Path) -> None:
    """A COCO JSON and a raw folder."""
    layouts.coco(folder)
    (folder / "set.yaml").unlink()


def photos(folder: Path) -> None:
    """Photos with a COCO JSON, from which raws are made on the fly."""
    from tests.support.photos import labelled_photos

    labelled_photos(folder, n=1)


def read_photos() -> None:
    """Makes raws of photos, and looks for what is wrong with them."""
    data = open_dataset(Path("labels.json"), Path("images"), light="mixed", draws=2)
    look_at_set(data)


def synth_folder(folder: Path) -> None:
    """What `synth` makes: lights with labels, listed."""
    for light in ("dark", "mixed"):
        small_coco(folder / light)
        (folder / light / "train.json").rename(folder / light / "labels.json")
        (folder / light / "val.json").unlink()
        for path in (folder / light / "images").iterdir():
            path.rename(folder / light / path.name)
    (folder / "set.json").write_text(json.dumps({"lights": ["dark", "mixed"]}))


# detectors


def detector_reader(name: str) -> Callable[[], None]:
    """Loads a detector and lets it look at an image."""

    def read() -> None:
        from adaptiveisp.detectors.loading import load_detector
        from adaptiveisp.inference.detection import detect

        detector = load_detector(name, trusted=False)
        found = detect(detector, [torch.full((1, 3, 48, 64), 0.3)], (48, 64), 64, 0.001)[0]
        require(bool(found.boxes.isfinite().all()) and bool(found.scores.isfinite().all()), "boxes that are not finite")
        if getattr(detector, "differentiable", True):
            box = Targets(torch.tensor([[8.0, 8, 40, 32]]), torch.tensor([0]))
            detector.loss(torch.full((1, 3, 64, 64), 0.3), [box])

    return read


def darknet(folder: Path) -> None:
    """A small Darknet network with its weights and class names."""
    darknet_cfg.write_mixed(folder, "d")
    (folder / "d.names").write_text("person\ncup\n")


def yolo_checkpoint(folder: Path) -> None:
    """A YOLOv3-tiny of few channels, as its repository saves it."""
    from tests.support.yolo_standins import save_checkpoint, stand_in_model, yolov3_tiny

    save_checkpoint(folder / "y.pt", stand_in_model(yolov3_tiny(1 / 64, 2)))


def yolov5_checkpoint(folder: Path) -> None:
    """A YOLOv5 of few channels."""
    from tests.support.yolo_standins import save_checkpoint, stand_in_model, yolov5

    save_checkpoint(folder / "y.pt", stand_in_model(yolov5(1 / 64, 0.33, 2), half=True))


def detector_file(folder: Path) -> None:
    """The same detector as it is imported."""
    from adaptiveisp.detectors.detector_file import save_detector
    from adaptiveisp.detectors.yolo.checkpoint import load_ultralytics

    yolo_checkpoint(folder)
    save_detector(folder / "y.safetensors", load_ultralytics(folder / "y.pt"), {"from": "here"})
    (folder / "y.pt").unlink()


def onnx_network(folder: Path) -> None:
    """A YOLO of one convolution."""
    from tests.support import onnx_models

    onnx_models.network(folder / "o.onnx")


def onnx_table(folder: Path) -> None:
    """A model that gives boxes, scores and labels, described by a sidecar."""
    from tests.support import onnx_models

    tables = {
        "boxes": np.array([[[1, 2, 30, 40], [3, 3, 20, 20]]], np.float32),
        "scores": np.array([[0.9, 0.5]], np.float32),
        "labels": np.array([[0, 1]]),
    }
    onnx_models.answers(folder / "o.onnx", tables)
    (folder / "o.yaml").write_text("decode: boxes\nnames: [person, cup]\noutputs: [labels, boxes, scores]\n")


def onnx_queries(folder: Path) -> None:
    """A DETR in little, described by a sidecar."""
    from tests.support import onnx_models

    onnx_models.detr_network(folder / "o.onnx")


def hugging_face(kind: str) -> Callable[[Path], None]:
    """A tiny network of Hugging Face's transformers."""

    def make(folder: Path) -> None:
        from tests.support.transformers_models import write_model

        write_model(folder / "hf", kind)

    return make


def forged_pickle(folder: Path, random_: random.Random, outside: Outside) -> None:
    """A checkpoint whose pickle names another class or function, or builds something that has no end."""
    path = next(folder.glob("*.pt"))
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    name = next(name for name in parts if name.endswith("data.pkl"))
    targets = (
        b"cos\nsystem\n",
        b"cbuiltins\neval\n",
        b"ctorch\nload\n",
        b"ctorch._utils\n_rebuild_tensor_v2\n",
        b"ccollections\nOrderedDict\n",
    )
    arguments = (b"(S'touch ../ran'\nt", b"(I1000000000\nt", b"(t", b")", b"(K\x01K\x02t", b"((((((t")
    body = random_.choice(targets) + random_.choice(arguments) + b"R" + random_.choice((b"", b"q\0h\0", b"}b", b"Nb"))
    loops = (
        b"]q\0h\0a.",
        b"}q\0(X\x05\0\0\0modelh\0u.",
        b"(" * 100_000 + b"t" * 100_000 + b".",
        b"\x95" + b"\xff" * 8 + b".",
    )
    bombs = (
        b"]q\0(" + b"h\0h\0" * 8 + b"e.",
        b"X\xff\xff\xff\x7fabc.",
        b"\x8a\xff" + b"\x7f" * 255 + b".",
        b"I" + b"9" * 5000 + b"\n.",
    )
    parts[name] = b"\x80\x02" + random_.choice((body + b".", body + b".", random_.choice(loops), random_.choice(bombs)))
    with zipfile.ZipFile(path, "w", random_.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))) as archive:
        for part, content in parts.items():
            archive.writestr(part, content)


SET_FILES = ("**/*.yaml", "**/*.json", "**/*.txt", "**/*.xml")
RUN_FILES = ("run/config.yaml", "run/latest.pt", "run/*.jsonl", "run/*.json", "run/*.safetensors")
FIXED = ("--method", "fixed", "--preset", "raw")
SEQUENCE = (
    "--method",
    "sequence",
    "--set=horizon=2",
    "--set=batch=2",
    "--set=expert_modules=[]",
    "--set=imitation_warmup=0",
)
HF_FILES = ("hf/config.json", "hf/preprocessor_config.json", "hf/model.safetensors")

READERS: tuple[Reader, ...] = (
    Reader("dng", dng_maker(), read_one("x.dng"), needs=("rawpy",), change=odd_dng),
    Reader("dng-nef", camera_file, read_one("x.nef"), needs=("rawpy",)),
    Reader("dng-tiled", tiled_dng, read_one("x.dng"), needs=("rawpy",)),
    Reader("dng-linear", linear_dng, read_one("x.dng"), needs=("rawpy",)),
    Reader("tiff", plain_tiff, read_one("x.tif")),
    Reader("png", mosaic_png, read_one("x.png")),
    Reader("npy", npy, read_one("x.npy")),
    Reader("npz", npz, read_one("x.npz", BayerHeader(frame=1))),
    Reader("pgm", pgm, read_one("x.pgm", BayerHeader(pattern="RGGB", frame=1))),
    Reader("exr", exr, read_one("x.exr"), needs=("OpenEXR",)),
    Reader("ros-sqlite", recording("SQLITE3"), read_recording, needs=("rosbags",)),
    Reader("ros-mcap", recording("MCAP"), read_recording, needs=("rosbags",)),
    Reader("raw-flags", headerless(""), read_one("x.raw", FLAGS)),
    Reader("raw-sidecar", headerless("x.raw.yaml"), read_one("x.raw")),
    Reader("raw-folder", headerless("raw.yaml"), read_one("x.raw"), ("raw.yaml",)),
    Reader("pipeline", pipeline, read_pipeline),
    Reader("policy", sequence_policy, read_policy),
    Reader("policy-stepwise", stepwise_policy, read_policy, slow=True),
    Reader("released", released, read_released),
    Reader("pos-isp", pos_isp, read_pos_isp),
    Reader("run-fixed", run_folder(*FIXED), read_run, RUN_FILES, slow=True),
    Reader("run-sequence", run_folder(*SEQUENCE), read_run, RUN_FILES),
    Reader("recipe", recipe, read_recipe),
    Reader("costs", costs, read_costs),
    Reader("coco", small_coco, set_reader("train.json", "images"), ("*.json",)),
    Reader("set-yolo", layouts.yolo, set_reader("data.yaml:train"), SET_FILES),
    Reader("set-voc", layouts.voc, set_reader("set.yaml:train"), SET_FILES),
    Reader("set-coco", layouts.coco, set_reader("set.yaml:train"), SET_FILES),
    Reader("set-rod", layouts.rod, set_reader("set.yaml:train"), SET_FILES),
    Reader("set-nod", layouts.nod, set_reader("set.yaml:train"), SET_FILES, needs=("rawpy",), slow=True),
    Reader("set-lod", layouts.lod_yolo, set_reader("set.yaml:train"), SET_FILES),
    Reader("photos", photos, read_photos),
    Reader("synth", synth_folder, set_reader("."), SET_FILES),
    Reader("darknet", darknet, detector_reader("d.weights")),
    Reader("yolo-pt", yolo_checkpoint, detector_reader("y.pt"), change=forged_pickle),
    Reader("yolov5-pt", yolov5_checkpoint, detector_reader("y.pt"), slow=True),
    Reader("detector", detector_file, detector_reader("y.safetensors")),
    Reader("onnx", onnx_network, detector_reader("o.onnx"), needs=("onnx", "onnxruntime")),
    Reader("onnx-table", onnx_table, detector_reader("o.onnx"), needs=("onnx", "onnxruntime"), slow=True),
    Reader("onnx-queries", onnx_queries, detector_reader("o.onnx"), needs=("onnx", "onnxruntime")),
    Reader("hf-yolos", hugging_face("yolos"), detector_reader("hf"), HF_FILES, ("transformers",), slow=True),
    Reader("hf-rtdetr", hugging_face("rt_detr"), detector_reader("hf"), HF_FILES, ("transformers",), slow=True),
)
