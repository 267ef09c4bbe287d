"""The shape of the code: layers, public names, and what a wheel carries."""

import ast
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import adaptiveisp
from tests.conftest import REPOSITORY

PACKAGE = REPOSITORY / "src" / "adaptiveisp"

ORDER = (
    *(
        "errors",
        "utils",
        "types",
        "kernels",
        ("raw", "isp", "detectors"),
        "external",
        "policies",
        "inference",
        ("streaming", "data"),
    ),
    *("evaluation", "training", ("calibration", "deployment", "tuning", "runtime", "scale")),
    *("serving", "testing", "cli", ("__init__", "__main__")),
)
"""Packages and files beside them; each imports only from those before it (those in one bracket not from each other)."""


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


def test_packages_import_only_from_those_before_them() -> None:
    rank = {name: number for number, part in enumerate(ORDER) for name in ((part,) if isinstance(part, str) else part)}
    for path in PACKAGE.rglob("*.py"):
        own = unit_of(path)
        upward = {name for name in imported_units(path) - {own} if rank[name] >= rank[own]}
        assert not upward, f"{path.relative_to(PACKAGE)} imports from {upward}"


MOST_LINES = {"a file": 400, "a function": 60}
"""Of the package's code; docstrings, comments and empty lines count."""


def test_files_and_functions_are_short() -> None:
    """Methods and functions inside functions count too, and there are no exceptions."""
    too_long = []
    for path in sorted(PACKAGE.rglob("*.py")):
        text, name = path.read_text(encoding="utf-8"), path.relative_to(PACKAGE).as_posix()
        lines = len(text.splitlines())
        if lines > MOST_LINES["a file"]:
            too_long.append(f"{name} has {lines} lines")
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lines = (node.end_lineno or node.lineno) - node.lineno + 1
                if lines > MOST_LINES["a function"]:
                    too_long.append(f"{name}:{node.lineno} {node.name} has {lines} lines")
    assert not too_long, f"longer than {MOST_LINES}: {'; '.join(too_long)}"


def test_few_files_lie_beside_the_packages() -> None:
    assert {path.name for path in PACKAGE.glob("*.py")} == {"__init__.py", "__main__.py", "errors.py", "types.py"}


PUBLIC = [
    "AdaptiveISP",
    "AdaptiveISPError",
    "Annotation",
    "BayerHeader",
    "Detections",
    "Detector",
    "EvalConfig",
    "IspModule",
    "Method",
    "Param",
    "Pipeline",
    "RawImage",
    "Report",
    "Result",
    "RewardInputs",
    "Sample",
    "Stage",
    "SynthesisConfig",
    "Targets",
    "TrainConfig",
    "TrainSummary",
    "evaluate",
    "export",
    "load_detector",
    "load_policy",
    "load_recipe",
    "open_dataset",
    "read_raw",
    "register_dataset",
    "register_detector",
    "register_method",
    "register_module",
    "register_policy",
    "register_reward",
    "synthesize",
    "train",
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


@pytest.mark.long
def test_a_wheel_carries_all_it_needs(tmp_path: Path) -> None:
    """Built, unpacked into an empty folder as installers do, and used from elsewhere."""
    source = tmp_path / "source"
    ignored = (".*", "build", "dist", "demo-out", "runs", "__pycache__", "*.egg-info")
    shutil.copytree(REPOSITORY, source, ignore=shutil.ignore_patterns(*ignored))
    project = source / "pyproject.toml"
    project.write_text(project.read_text().replace('"-O3"', '"-O0"'))  # compiles in a third of the time
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", "wheel", "--no-deps"]
    subprocess.run([*pip, "--no-build-isolation", "-w", str(tmp_path / "dist"), str(source)], check=True)
    (wheel,) = (tmp_path / "dist").glob("adaptiveisp-*.whl")
    zipfile.ZipFile(wheel).extractall(tmp_path / "site")
    code = (
        "import adaptiveisp, pathlib\n"
        "home = pathlib.Path(adaptiveisp.__file__).parent\n"
        f"assert home.is_relative_to({str(tmp_path)!r}), home\n"
        "for name in ('py.typed', 'evaluation/templates/report.html.j2', 'evaluation/templates/doctor.html.j2', "
        "'evaluation/templates/style.css.j2', 'policies/assets/pipelines/night.json', "
        "'policies/assets/pretrained/coco-adaptive.safetensors', 'serving/static/index.html', "
        "'policies/assets/pretrained/coco-fast.md', "
        "'detectors/darknet/cfg/yolov3-tiny.cfg'):\n"
        "    assert (home / name).is_file(), name\n"
        "from adaptiveisp.cli.parser import main\n"
        "from adaptiveisp.kernels import loading\n"
        "from adaptiveisp.testing import check_detector\n"
        f"assert loading.available() or {shutil.which('cc') is None}, 'the kernels were not compiled'\n"
        "assert main(['--version']) == 0 and main(['weights', 'list']) == 0"
    )
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "site"), "ADAPTIVEISP_CACHE": str(tmp_path / "cache")}
    subprocess.run([sys.executable, "-P", "-c", code], check=True, cwd=tmp_path, env=environment)
