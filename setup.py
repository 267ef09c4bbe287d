"""Builds the kernels as a plain C library, so that one wheel serves every Python version of a platform.

Everything else about the package is in pyproject.toml. The kernels are loaded by ctypes and do not use Python's C
interface: neither the library's name nor the wheel's tag carries a Python version.
"""

import os
import sys
from pathlib import Path

from setuptools import setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_ext import build_ext

LIBRARY_SUFFIX = ".pyd" if sys.platform == "win32" else ".so"


class BuildKernels(build_ext):
    """Builds `_kernels.so` without a Python version in its name.

    On Windows nothing is built and the package computes with PyTorch: the C code needs GCC or Clang, and GCC does not
    align the stack for AVX there.
    """

    def finalize_options(self) -> None:
        """Leaves out the kernels on Windows."""
        super().finalize_options()
        if sys.platform == "win32":
            self.extensions = []

    def get_ext_filename(self, fullname: str) -> str:
        """File name of the library, below the folder of the packages."""
        return os.path.join(*fullname.split(".")) + LIBRARY_SUFFIX

    def get_export_symbols(self, ext: object) -> list[str]:
        """No symbol beside those of the C files: there is no function that initialises a Python module."""
        return []

    def copy_extensions_to_source(self) -> None:
        """Puts the library into an editable install, where one with a version in its name would be loaded first."""
        super().copy_extensions_to_source()
        folder = Path(self.get_finalized_command("build_py").get_package_dir("adaptiveisp.kernels"))
        for former in folder.glob("_kernels.c*.*"):
            former.unlink()


class PlatformWheel(bdist_wheel):
    """A wheel tagged py3-none-PLATFORM."""

    def get_tag(self) -> tuple[str, str, str]:
        """Python tag, ABI tag and platform tag."""
        return "py3", "none", super().get_tag()[2]


setup(cmdclass={"build_ext": BuildKernels, "bdist_wheel": PlatformWheel})
