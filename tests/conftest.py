"""Shared fixtures: where the optional golden values and photos are, and tests that need them skip with the reason."""

import gc
import os
from pathlib import Path

import pytest
import torch

from tests.golden import SMALL_FILE, GoldenValues
from tests.support import shape_checks

shape_checks.install()

os.environ["HF_HUB_OFFLINE"] = "1"  # no test may ask the network; read when huggingface_hub is imported

REPOSITORY = Path(__file__).resolve().parent.parent


LONG = (
    *("methods/test_actor_critic.py", "test_detector_contract.py", "test_devices.py", "methods/test_sequence.py"),
    *("test_stops.py", "test_yolo_checkpoint.py", "test_trainer.py", "test_commands.py", "test_odd_labels.py"),
    *("test_huggingface.py", "test_modules.py", "test_runs.py", "test_layouts.py", "training/test_config.py"),
    *("test_untrusted_files.py", "test_report.py", "test_frame_cache.py", "test_extending.py", "test_onnx.py"),
    *("test_architecture.py", "test_tutorials.py", "test_fuzz.py", "test_cost_figure.py", "test_terminal.py"),
    *("test_bootstrap.py", "test_backward.py", "test_package_index.py", "test_pseudo_labels.py"),
)
"""Files of tests that take long; they run first, so that no worker is left alone with one at the end."""


FIGURES = ("light_figure", "forest_figure", "class_figure", "cost_figure", "place_figure", "parameter_figure")
"""Functions that draw the figures of a report."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    def place(item: pytest.Item) -> int:
        return next((number for number, name in enumerate(LONG) if item.path.as_posix().endswith(name)), len(LONG))

    items.sort(key=place)


def pytest_collection_finish() -> None:
    """Leaves all that is imported by now out of later garbage collections, each of which would look through it."""
    gc.freeze()


def shared_folder() -> Path:
    """The folder of golden values and data: ADAPTIVEISP_DATA, else `shared` beside the repository."""
    return Path(os.environ.get("ADAPTIVEISP_DATA") or REPOSITORY.parent / "shared")


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture
def quiet_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty current folder, from where the command line finds `tests.support.fake_detector:load`."""
    monkeypatch.syspath_prepend(str(REPOSITORY))
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def without_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leaves the drawings of reports empty, for tests that look at other parts; they take most of a report's time.

    Training runs draw no curve.
    """
    import markupsafe

    from adaptiveisp.evaluation import html_report
    from adaptiveisp.training import dev_curve

    monkeypatch.setattr(dev_curve, "find_spec", lambda _: None)

    real = html_report.svg
    for name in FIGURES:
        monkeypatch.setattr(html_report, name, lambda *_: None)
    empty = markupsafe.Markup("<svg></svg>")
    monkeypatch.setattr(html_report, "svg", lambda figure, salt: empty if figure is None else real(figure, salt))


@pytest.fixture(scope="session")
def shared() -> Path:
    folder = shared_folder()
    if not folder.is_dir():
        pytest.skip(f"no {folder}; set ADAPTIVEISP_DATA to the folder of golden values and data")
    return folder


@pytest.fixture(scope="session")
def golden() -> GoldenValues:
    """Values of the original implementation: all of them, or those in the repository where the others are absent."""
    path = shared_folder() / "golden" / "reference.npz"
    return GoldenValues(path if path.is_file() else SMALL_FILE)


@pytest.fixture(scope="session")
def small_golden() -> GoldenValues:
    """The values of the original implementation that the repository has."""
    return GoldenValues(SMALL_FILE)


@pytest.fixture(scope="session")
def released_checkpoint(shared: Path) -> Path:
    """A checkpoint of the released layout with random weights, 34 MB; the golden rollouts were made with it."""
    path = shared / "golden" / "reference-random.pth"
    if not path.is_file():
        pytest.skip(f"no {path}; set ADAPTIVEISP_DATA to the folder of golden values and data")
    return path


@pytest.fixture(scope="session")
def tiny_weights() -> Path:
    """The cached YOLOv3-tiny weights."""
    from adaptiveisp.detectors.weights import is_installed, weights_path

    if not is_installed("yolov3-tiny"):
        pytest.skip("yolov3-tiny is not installed; run `adaptiveisp weights get yolov3-tiny`")
    return weights_path("yolov3-tiny")
