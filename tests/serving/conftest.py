"""The browser and axe-core, which the tests of several pages use."""

import shutil
import subprocess
import tarfile
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.browser import chromium, chromium_path


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    chromium_path()
    with chromium() as running:
        yield running


@pytest.fixture(scope="session")
def axe(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The source of axe-core, of npm's registry."""
    npm = shutil.which("npm")
    if npm is None:
        pytest.skip("npm, which has axe-core, is not installed")
    folder = tmp_path_factory.mktemp("axe")
    done = subprocess.run(
        [npm, "pack", "axe-core", "--ignore-scripts", "--silent"],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=120,
    )
    if done.returncode:
        pytest.skip(f"npm pack axe-core fails: {done.stderr[-200:]}")
    with tarfile.open(next(folder.glob("*.tgz"))) as archive:
        file = archive.extractfile("package/axe.min.js")
        assert file is not None
        return file.read().decode()
