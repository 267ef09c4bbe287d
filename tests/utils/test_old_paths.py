"""Imports of before the packages, in a fresh interpreter: the same objects, and a warning that names the new way."""

import subprocess
import sys

import pytest

import adaptiveisp

OLD = {
    "predictor": ("AdaptiveISP", "Result"),
    "raw": ("BayerHeader", "read_raw"),
    "detectors": ("load_detector",),
    "zoo": ("load_policy",),
    "datasets": ("open_dataset",),
    "dng": ("write_dng",),
}


def test_old_imports_give_the_same_objects_with_a_warning() -> None:
    lines = ["import sys, warnings", f"sys.path[:0] = {sys.path!r}", "import adaptiveisp"]
    for module, names in OLD.items():
        for name in names:
            lines += [
                "with warnings.catch_warnings(record=True) as caught:",
                "    warnings.simplefilter('always')",
                f"    from adaptiveisp.{module} import {name}",
                f"assert {name} is adaptiveisp.{name}",
                f"assert 'use: from adaptiveisp import {name}' in str([w.message for w in caught]), '{name}'",
            ]
    done = subprocess.run([sys.executable, "-c", "\n".join(lines)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_other_names_are_as_unknown_as_ever() -> None:
    with pytest.raises(ImportError):
        from adaptiveisp.predictor import nothing  # type: ignore[import-not-found]  # noqa: F401
    with pytest.raises(ModuleNotFoundError):
        import adaptiveisp.nothing  # type: ignore[import-not-found]  # noqa: F401


def test_the_version_is_that_of_the_package() -> None:
    from importlib.metadata import version

    assert adaptiveisp.__version__ == version("adaptiveisp")
