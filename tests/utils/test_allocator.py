import os
import subprocess
import sys

import pytest

FAULTS = """
import resource, numpy
from adaptiveisp.utils.allocator import keep_freed_memory
kept = {asked} and keep_freed_memory()
numpy.ones(5_000_000)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(5):
    numpy.ones(5_000_000)
print(kept, resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(asked: bool, **environment: str) -> tuple[str, int]:
    """Whether memory is kept, and how many fresh pages five arrays of 40 MB take, one after the other."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    code = FAULTS.format(asked=asked)
    ran = subprocess.run([sys.executable, "-c", code], env=clean | environment, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    kept, count = ran.stdout.split()
    return kept, int(count)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's settings")
def test_freed_memory_is_taken_again_instead_of_fresh_pages() -> None:
    kept, few = faults(asked=True)
    if kept == "False":
        pytest.skip("this C library has no mallopt")
    assert few < 500, f"{few} fresh pages for what was freed just before"


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's settings")
def test_what_the_environment_sets_goes_before_it() -> None:
    kept, _ = faults(asked=True, MALLOC_TOP_PAD_="1048576")
    assert kept == "False"
