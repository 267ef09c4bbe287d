"""Damaged inputs for every reader of the package: `python -m tests.robustness.fuzz --inputs 2000 --seed 0`.

Each input is a small valid one (`fuzz_readers`) after some changes (`fuzz_mutations`). It is read in a
forked child whose memory is limited, while this process watches the clock. The reader may succeed or raise an
AdaptiveISPError of one short printable line. All else is a fault: another exception, a crash, more than 2 GB or 20
seconds, control characters on the console, a connection, and any file that is written, changed or removed outside the
input's own folder.

`--only SEED:NUMBER` repeats one input and keeps its folder.
"""

import argparse
import contextlib
import faulthandler
import importlib
import json
import logging
import os
import random
import re
import resource
import select
import shutil
import signal
import socket
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from adaptiveisp.errors import AdaptiveISPError, logger
from tests.robustness.fuzz_mutations import Outside
from tests.robustness.fuzz_readers import READERS, Reader, Wrong, fault_of_message

LONGEST_SECONDS = 20.0
MOST_BYTES = 2 * 2**30
CHUNK = 40
"""Inputs of one child."""
LARGEST_SPLICED = 100_000
"""Bytes of a file that others are spliced with."""
NO_MEMORY = re.compile(r"bad_alloc|allocate memory|not enough memory|out of memory|unable to allocate", re.IGNORECASE)
IMPORTS = (
    "onnxruntime",
    "onnx",
    "rawpy",
    "tifffile",
    "safetensors.torch",
    "adaptiveisp.data.validation",
    "adaptiveisp.training.runs",
)
MODELS = (
    "torch._dynamo",
    "torch._inductor.config",
    "transformers.models.yolos",
    "transformers.models.rt_detr",
    "adaptiveisp.detectors.huggingface.loading",
)


@dataclass(frozen=True)
class Outcome:
    """What became of an input.

    Attributes:
        number: of the input.
        reader: its name.
        fault: what is wrong; "" for nothing.
        message: of the error it ended with; "" where it was read.
        seconds: that it took.
        megabytes: by which the largest memory in use grew.
    """

    number: int
    reader: str
    fault: str = ""
    message: str = ""
    seconds: float = 0.0
    megabytes: float = 0.0


class Fuzz:
    """Valid inputs of the readers in a folder, and what is made of them.

    Args:
        root: a new folder.
        readers: those to try; those that lack a library are left out.
    """

    def __init__(self, root: Path, readers: Sequence[Reader] = READERS):
        self.root = root.resolve()
        self.left_out = {reader.name: reader.missing for reader in readers if reader.missing}
        self.readers = [reader for reader in readers if not reader.missing]
        models = MODELS if any("transformers" in reader.needs for reader in self.readers) else ()
        for name in (*IMPORTS, *models):  # once, instead of in every child
            with contextlib.suppress(ImportError):
                importlib.import_module(name)
        torch.optim.Adam([torch.zeros(1, requires_grad=True)])  # imports hundreds more
        torch.set_num_threads(1)
        for folder in ("seeds", "box"):
            (self.root / folder).mkdir()
        self._make()
        files = sorted(path for path in (self.root / "seeds").rglob("*") if path.is_file())
        small = tuple(path.read_bytes() for path in files if 0 < path.stat().st_size < LARGEST_SPLICED)
        self.outside = Outside(self.root / "box" / "canary.txt", small)

    def _make(self) -> None:
        """Makes the valid inputs, in a child: what they load and start is none of this process's business."""
        process = os.fork()
        if process == 0:
            code = 1
            try:
                self._quiet("made.txt")
                with torch.random.fork_rng():
                    torch.manual_seed(0)
                    for reader in self.readers:
                        folder = self.root / "seeds" / reader.name
                        folder.mkdir()
                        os.chdir(folder)
                        reader.make(folder)
                code = 0
            except BaseException:
                traceback.print_exc()
            finally:
                sys.stderr.flush()
                os._exit(code)
        if os.waitpid(process, 0)[1]:
            raise RuntimeError((self.root / "made.txt").read_text(errors="replace"))

    def _quiet(self, name: str) -> None:
        """Sends what this process prints to a file, and takes its input away."""
        log = os.open(self.root / name, os.O_CREAT | os.O_RDWR | os.O_APPEND | os.O_TRUNC)
        os.dup2(log, 1)
        os.dup2(log, 2)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        # A test runner puts others in their place.
        sys.stdout = os.fdopen(1, "w", buffering=1, errors="backslashreplace", closefd=False)
        sys.stderr = os.fdopen(2, "w", buffering=1, errors="backslashreplace", closefd=False)
        faulthandler.enable(sys.stderr)

    def prepare(self, seed: int, number: int) -> Reader:
        """Puts an input into the folder `box/in`, with a canary beside it."""
        box = self.root / "box"
        shutil.rmtree(box)
        box.mkdir()
        (box / "canary.txt").write_text("still here")
        (box / "tmp").mkdir()
        (box / "home").mkdir()
        reader = self.readers[number % len(self.readers)]
        shutil.copytree(self.root / "seeds" / reader.name, box / "in")
        if number >= 0:
            reader.damage(box / "in", random.Random(f"{seed}:{number}"), self.outside)
        return reader

    def run(self, seed: int, numbers: Iterable[int]) -> Iterator[Outcome]:
        """Reads inputs, in children; one that was too slow gets a second chance alone, as the machine may be busy."""
        waiting = list(numbers)
        while waiting:
            chunk, waiting = waiting[:CHUNK], waiting[CHUNK:]
            while chunk:
                for outcome in self._run_chunk(seed, chunk):
                    chunk.remove(outcome.number)
                    again = outcome.seconds > LONGEST_SECONDS and len(chunk) > 0
                    yield next(iter(self._run_chunk(seed, [outcome.number]))) if again else outcome

    def run_valid(self) -> Iterator[Outcome]:
        """What becomes of the inputs without any change; they have negative numbers."""
        return self.run(0, range(-len(self.readers), 0))

    def _run_chunk(self, seed: int, numbers: Sequence[int]) -> Iterator[Outcome]:
        """Reads inputs in one child until one of them ends it."""
        reading, writing = os.pipe()
        process = os.fork()
        if process == 0:
            code = 1
            try:
                os.close(reading)
                self._quiet("said.txt")
                _limit()
                with os.fdopen(writing, "w", buffering=1) as answers:
                    for number in numbers:
                        answers.write(f"{number}\n")
                        answers.write(json.dumps(asdict(self._try(seed, number))) + "\n")
                code = 0
            except BaseException:
                traceback.print_exc()  # found by the parent in what was said
            finally:
                sys.stderr.flush()
                os._exit(code)
        os.close(writing)
        yield from self._watch(process, reading)

    def _watch(self, process: int, reading: int) -> Iterator[Outcome]:
        """The answers of a child; it is ended where an input takes too long."""
        open_number, began, left = None, time.monotonic(), b""
        while True:
            wait = began + LONGEST_SECONDS - time.monotonic()
            ready = select.select([reading], [], [], max(0.0, wait))[0]
            if not ready:
                os.kill(process, signal.SIGKILL)
                os.waitpid(process, 0)
                os.close(reading)
                assert open_number is not None, "between two inputs"
                yield self._ended(open_number, f"takes more than {LONGEST_SECONDS:g} s", LONGEST_SECONDS + 1)
                return
            found = os.read(reading, 1 << 16)
            if not found:
                break
            *lines, left = (left + found).split(b"\n")
            for line in lines:
                began = time.monotonic()
                if line.startswith(b"{"):
                    open_number = None
                    yield Outcome(**json.loads(line))
                else:
                    open_number = int(line)
        os.close(reading)
        code = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
        if open_number is not None:
            said = (self.root / "said.txt").read_text(errors="replace")[-1500:]
            yield self._ended(open_number, f"the process ended with {code}: {said}", time.monotonic() - began)

    def _ended(self, number: int, fault: str, seconds: float) -> Outcome:
        return Outcome(number, self.readers[number % len(self.readers)].name, fault, seconds=seconds)

    def _try(self, seed: int, number: int) -> Outcome:
        """Reads one input in this process."""
        reader = self.prepare(seed, number)
        box = self.root / "box"
        os.chdir(box / "in")
        os.environ |= {"HOME": str(box / "home"), "TMPDIR": str(box / "tmp"), "ADAPTIVEISP_CACHE": str(box / "home")}
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(self.root / "compiled")  # made by an import
        tempfile.tempdir = str(box / "tmp")
        before, said = _contents(box), (self.root / "said.txt").stat().st_size
        memory, began = _start_of_memory(), time.monotonic()
        with _listening() as logged:
            fault, message = read_input(reader.read)
        outcome = Outcome(number, reader.name, fault, message, time.monotonic() - began, _peak() - memory)
        sys.stdout.flush()
        sys.stderr.flush()
        with (self.root / "said.txt").open("rb") as stream:
            stream.seek(said)
            printed = stream.read().decode("utf-8", "replace").replace("\n", " ").replace("\t", " ")
        faults = [fault, *map(fault_of_message, logged), _fault_of_print(printed), _difference(before, _contents(box))]
        if outcome.seconds > LONGEST_SECONDS:
            faults.append(f"takes {outcome.seconds:.0f} s")
        if outcome.megabytes * 2**20 > MOST_BYTES:
            faults.append(f"takes {outcome.megabytes:.0f} MB")
        return replace(outcome, fault="; ".join(filter(None, faults)))


def read_input(read: Callable[[], Any]) -> tuple[str, str]:
    """The fault of a reader, "" for none, and the message of the error that it ended with."""
    try:
        read()
    except AdaptiveISPError as error:
        message = str(error)
        fault = fault_of_message(message)
        if any(isinstance(cause, MemoryError) or NO_MEMORY.search(str(cause)) for cause in _causes(error)):
            fault = f"asks for more memory than {MOST_BYTES / 2**30:g} GB"
        return fault, message
    except Wrong as error:
        return f"wrong: {error}", ""
    except BaseException as error:  # whatever it is, it is a fault
        where = [f"{Path(frame.filename).name}:{frame.lineno}" for frame in traceback.extract_tb(error.__traceback__)]
        return f"{type(error).__name__}: {str(error)[:300]!r} at {' < '.join(where[-6:][::-1])}", ""
    return "", ""


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _limit() -> None:
    """Limits this process, and forbids it the network."""
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + MOST_BYTES, used + MOST_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.environ |= {"HF_HUB_OFFLINE": "1", "PYTHONFAULTHANDLER": "1"}

    def connect(*arguments: Any) -> None:
        raise Wrong("opens a connection")

    socket.socket.connect = connect  # type: ignore[method-assign]
    socket.socket.connect_ex = connect  # type: ignore[assignment, method-assign]


def _start_of_memory() -> float:
    """The memory in use in MB; the largest so far is forgotten."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    return _peak()


def _peak() -> float:
    """The largest memory in use since `_start_of_memory`, in MB."""
    found = re.search(r"VmHWM:\s*(\d+)", Path("/proc/self/status").read_text())
    return int(found[1]) / 1024 if found else 0.0


@contextlib.contextmanager
def _listening() -> Iterator[list[str]]:
    """What the package's logger says meanwhile."""
    said: list[str] = []

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            said.append(record.getMessage())

    listener = Listener()
    logger.addHandler(listener)
    try:
        yield said
    finally:
        logger.removeHandler(listener)


def _fault_of_print(text: str) -> str:
    fault = fault_of_message(text[:1000]) or fault_of_message(text[-1000:])
    return fault and f"prints {text[:200]!r}"


def _contents(box: Path) -> dict[str, bytes]:
    """All there is beside an input: path → content."""
    found: dict[str, bytes] = {}
    for place, folders, names in os.walk(box):
        if Path(place) == box:
            folders.remove("in")
        for name in folders:
            found[os.path.join(place, name)] = b"a folder"
        for name in names:
            found[os.path.join(place, name)] = Path(place, name).read_bytes()
    return found


def _difference(before: dict[str, bytes], after: dict[str, bytes]) -> str:
    changed = sorted(path for path in before.keys() | after.keys() if before.get(path) != after.get(path))
    return f"writes or removes outside its folder: {', '.join(changed[:5])}" if changed else ""


def signature(outcome: Outcome) -> str:
    """A fault without its details, to count those that are the same."""
    return outcome.reader.partition("-")[0] + ": " + re.sub(r"\d+|'.*?'", "…", outcome.fault)[:150]


def fuzz(
    root: Path, seed: int, inputs: int, readers: Sequence[Reader] = READERS, say: Callable[[str], None] = print
) -> list[Outcome]:
    """Reads inputs and tells of what is wrong.

    Args:
        root: a new folder.
        seed: of the inputs.
        inputs: how many.
        readers: those to try, in turn.
        say: gets each line of the report.

    Returns:
        The outcomes of all inputs.
    """
    fuzzing = Fuzz(root, readers)
    for name, libraries in fuzzing.left_out.items():
        say(f"{name}: left out, needs {' and '.join(libraries)}")
    outcomes: list[Outcome] = []
    for outcome in fuzzing.run(seed, range(inputs)):
        outcomes.append(outcome)
        if outcome.fault:
            say(f"{seed}:{outcome.number} {outcome.reader}: {outcome.fault}")
        if len(outcomes) % 200 == 0:
            say(f"{len(outcomes)} inputs, {sum(bool(one.fault) for one in outcomes)} faults")
    slowest, largest = (max(outcomes, key=key) for key in (lambda one: one.seconds, lambda one: one.megabytes))
    refused, faults = sum(bool(one.message) for one in outcomes), [one for one in outcomes if one.fault]
    say(f"slowest {slowest.seconds:.1f} s ({slowest.number}, {slowest.reader})")
    say(f"largest {largest.megabytes:.0f} MB ({largest.number}, {largest.reader})")
    for kind, count in Counter(map(signature, faults)).most_common():
        say(f"{count} x {kind}")
    say(f"{len(outcomes)} inputs, {refused} refused, {len(faults)} faults")
    return outcomes


def repeat(root: Path, text: str, readers: Sequence[Reader]) -> Outcome:
    """Repeats the input SEED:NUMBER and keeps its folder in the current one."""
    seed, number = map(int, text.split(":"))
    fuzzing = Fuzz(root, readers)
    reader = fuzzing.prepare(seed, number)
    kept = Path(f"fuzz-{seed}-{number}-{reader.name}")
    shutil.rmtree(kept, ignore_errors=True)
    shutil.copytree(root / "box" / "in", kept)
    print(f"kept in {kept}")
    outcome = next(iter(fuzzing._run_chunk(seed, [number])))
    print((root / "said.txt").read_text(errors="backslashreplace"))
    return outcome


def command_line() -> int:
    """Reads as many inputs as asked; 1 where something is wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--only", metavar="SEED:NUMBER", help="repeat this one and keep its folder (with the same --readers)"
    )
    parser.add_argument("--readers", nargs="+", metavar="NAME", help=", ".join(reader.name for reader in READERS))
    parser.add_argument("--messages", action="store_true", help="print the message of each input that is refused")
    options = parser.parse_args()
    readers = [reader for reader in READERS if options.readers is None or reader.name in options.readers]
    with tempfile.TemporaryDirectory() as name:
        if options.only:
            outcomes = [repeat(Path(name).resolve(), options.only, readers)]
            print(outcomes[0])
        else:
            outcomes = fuzz(Path(name), options.seed, options.inputs, readers, lambda line: print(line, flush=True))
        if options.messages:
            for one in outcomes:
                print(f"{one.number} {one.reader}: {one.message or 'read'}")
    return 1 if any(one.fault for one in outcomes) else 0


if __name__ == "__main__":
    sys.exit(command_line())
