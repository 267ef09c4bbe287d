"""The shape of the code: layers, public names, and what a wheel carries."""

import ast
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import adaptiveisp
from tests.conftest import REPOSITORY

PACKAGE = REPOSITORY / "src" / "adaptiveisp"

LAYERS = (
    ("errors", "exitcodes"),
    ("files", "rawfields", "rawkinds"),
    ("yamlfile",),
    ("extras", "memory", "settings", "switches", "terminal", "threads", "types"),
    ("output_folder", "package_index", "run_state"),
    (
        "boxes",
        "classes",
        "color",
        "cuda_graphs",
        "native",
        "native_look",
        "native_photos",
        "native_training",
        "rawnote",
        "weights",
    ),
    ("letterbox", "views", "rawheader", "rawpng", "rawguess", "rawtags", "dng", "demosaic", "unprocess"),
    ("rawlib", "rawtiff", "rawchecks", "tagchecks"),
    ("rawarray",),
    ("rawcamera",),
    ("raw", "develop"),
    ("framecache", "rawsize"),
    ("isp",),
    ("detectors", "datasets", "environment", "parameters", "reward"),
    ("costs", "networks", "rl"),
    ("provenance", "policies"),
    ("oracle", "sequence_networks", "stream"),
    ("checkpoint",),
    ("frozen",),
    ("replay", "sequence_policy", "stepwise"),
    ("zoo",),
    ("predictor", "synth", "coco_map", "drawing", "methods"),
    ("figures", "losses", "paired", "runlog", "teacher", "trajectories", "usage"),
    ("pipeline_figures", "scores", "tradeoff"),
    ("groups",),
    ("report",),
    ("tables",),
    ("page",),
    ("benchmark", "doctor", "evaluate", "run_outputs", "runsetup"),
    ("run",),
    ("doctor_page",),
    ("training",),
    ("demo",),
    ("console",),
    ("commands", "doctor_command", "train_command"),
    ("cli",),
    ("__init__", "__main__"),
)
"""Files or folders of the package; each imports only from its own or earlier layers."""


def unit_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported_units(path: Path) -> set[str]:
    """Names below `adaptiveisp` that a file imports anywhere; the type checker's imports do not count."""
    tree = ast.parse(path.read_text())
    skipped = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    names: set[str] = set()
    for node in ast.walk(tree):
        if id(node) in skipped:
            continue
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "adaptiveisp":
            parts = node.module.split(".")[1:]
            names |= {parts[0]} if parts else {alias.name for alias in node.names}
        elif isinstance(node, ast.Import):
            names |= {a.name.split(".")[1] for a in node.names if a.name.startswith("adaptiveisp.")}
    return names


def test_every_file_has_a_layer_and_imports_only_from_earlier_ones() -> None:
    level = {name: number for number, layer in enumerate(LAYERS) for name in layer}
    units = {unit_of(path) for path in PACKAGE.rglob("*.py")}
    assert units == set(level), "add new files to LAYERS, remove deleted ones"
    for path in PACKAGE.rglob("*.py"):
        own = unit_of(path)
        upward = {name for name in imported_units(path) - {own} if level[name] > level[own]}
        assert not upward, f"{path.name} (layer of {own}) imports from later layers: {upward}"


PUBLIC = [
    "AdaptiveISP",
    "AdaptiveISPError",
    "Annotation",
    "BayerHeader",
    "Detections",
    "Detector",
    "IspModule",
    "Param",
    "Pipeline",
    "RawImage",
    "Result",
    "Sample",
    "Stage",
    "Targets",
    "load_detector",
    "load_policy",
    "open_dataset",
    "read_raw",
    "write_dng",
]


def test_public_names_are_these_and_documented() -> None:
    assert sorted(adaptiveisp.__all__) == PUBLIC
    for name in PUBLIC:
        assert callable(getattr(adaptiveisp, name)) and getattr(adaptiveisp, name).__doc__, name
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        adaptiveisp.nothing  # noqa: B018


def test_no_public_name_is_also_a_module() -> None:
    """Importing a submodule sets its name on the package, which would hide a function of that name."""
    assert not set(PUBLIC) & {unit_of(path) for path in PACKAGE.rglob("*.py")}


def test_help_does_not_wait_for_torch() -> None:
    code = (
        "import sys\nfrom adaptiveisp.cli.parser import main\n"
        "for command in ([], ['run'], ['eval'], ['synth'], ['demo'], ['doctor'], ['weights', 'get']):\n"
        "    assert main([*command, '--help']) == 0\n"
        "assert not {'torch', 'numpy', 'matplotlib', 'rawpy'} & set(sys.modules), 'help is slow'"
    )
    subprocess.run(
        [sys.executable, "-c", code],
        check=True,
        capture_output=True,
        env={**os.environ, "PYTHONPATH": str(PACKAGE.parent)},
    )


def test_a_wheel_carries_all_it_needs(tmp_path: Path) -> None:
    """Built, installed into an empty folder without dependencies, and used from elsewhere."""
    source = tmp_path / "source"
    ignored = (".*", "build", "dist", "demo-out", "runs", "__pycache__", "*.egg-info")
    shutil.copytree(REPOSITORY, source, ignore=shutil.ignore_patterns(*ignored))
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    subprocess.run(
        [*pip, "wheel", "--no-deps", "--no-build-isolation", "-w", str(tmp_path / "dist"), str(source)], check=True
    )
    (wheel,) = (tmp_path / "dist").glob("adaptiveisp-*.whl")
    subprocess.run([*pip, "install", "--no-deps", "--target", str(tmp_path / "site"), str(wheel)], check=True)
    code = (
        "import adaptiveisp, pathlib\n"
        "home = pathlib.Path(adaptiveisp.__file__).parent\n"
        f"assert home.is_relative_to({str(tmp_path)!r}), home\n"
        "for name in ('py.typed', 'templates/report.html.j2', 'templates/doctor.html.j2', 'templates/style.css.j2', "
        "'pipelines/night.json', 'pretrained/coco-adaptive.safetensors', 'pretrained/coco-fast.md', "
        "'detectors/cfg/yolov3-tiny.cfg'):\n"
        "    assert (home / name).is_file(), name\n"
        "from adaptiveisp.cli.parser import main\n"
        "from adaptiveisp import native\n"
        f"assert native.available() or {shutil.which('cc') is None}, 'the kernels were not compiled'\n"
        "assert main(['--version']) == 0 and main(['weights', 'list']) == 0"
    )
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "site"), "ADAPTIVEISP_CACHE": str(tmp_path / "cache")}
    subprocess.run([sys.executable, "-P", "-c", code], check=True, cwd=tmp_path, env=environment)
