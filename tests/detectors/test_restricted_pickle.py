"""Pickles that would run something are refused and run nothing; damaged ones are refused; honest ones are read."""

import collections
import pickle
import struct
import sys
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from adaptiveisp.detectors.yolo import restricted_pickle
from adaptiveisp.detectors.yolo.restricted_pickle import (
    Name,
    Record,
    RefusedError,
    StoredTensor,
    _set_items,
    read_pickle,
)
from adaptiveisp.detectors.yolo.torch_file import open_torch_file
from adaptiveisp.errors import WeightsError

# ---------------------------------------------------------------- the tools


def text(value: str) -> bytes:
    """The instruction that pushes a text."""
    return b"X" + struct.pack("<I", len(value.encode())) + value.encode()


def name(dotted: str) -> bytes:
    module, _, attribute = dotted.rpartition(".")
    return f"c{module}\n{attribute}\n".encode()


def call(function: bytes, *arguments: bytes) -> bytes:
    return function + b"(" + b"".join(arguments) + b"tR"


def program(*instructions: bytes) -> bytes:
    return b"\x80\x02" + b"".join(instructions) + b"."


class Reduced:
    """Pickles as a call of `function`."""

    def __init__(self, function: Callable[..., Any], *arguments: Any, state: Any = None):
        self.value = (function, arguments, state)

    def __reduce__(self) -> Any:
        return self.value


RAN: list[str] = []
"""What the traps below wrote: an ordinary unpickler springs them."""


def spring(what: str = "called") -> str:
    RAN.append(what)
    return what


class Trap:
    """An ordinary class whose unpickling runs code."""

    def __setstate__(self, state: Any) -> None:
        spring("state")

    def __getstate__(self) -> Any:
        return {"a": 1}


class TrapDict(dict[str, int]):
    def __setitem__(self, key: str, value: int) -> None:
        spring("item")

    def __reduce_ex__(self, protocol: Any) -> Any:
        return (TrapDict, (), None, None, iter([("a", 1)]))


HERE = __name__
SPRING = name(f"{HERE}.spring")
CODE = f"__import__({HERE!r}, fromlist=['x']).spring('code')"

SPRUNG: dict[str, bytes] = {
    **{f"reduce, protocol {p}": pickle.dumps(Reduced(spring), protocol=p) for p in range(6)},
    "eval": pickle.dumps(Reduced(eval, CODE), protocol=2),
    "exec": pickle.dumps(Reduced(exec, CODE), protocol=4),
    "import, then getattr": program(
        call(
            call(name("builtins.getattr"), call(name("importlib.import_module"), text(HERE)), text("spring")), text("x")
        )
    ),
    "getattr of a name": program(call(call(name("builtins.getattr"), SPRING, text("__call__")), text("x"))),
    "attrgetter": program(
        call(
            call(
                call(name("operator.attrgetter"), text(HERE.partition(".")[2] + ".spring")),
                call(name("builtins.__import__"), text(HERE)),
            ),
            text("x"),
        )
    ),
    "partial": program(call(call(name("functools.partial"), SPRING), text("x"))),
    "map": program(call(name("builtins.list"), call(name("builtins.map"), SPRING, b"]" + text("x") + b"a"))),
    "in a state": pickle.dumps(Reduced(collections.OrderedDict, state={"a": Reduced(spring)}), protocol=2),
    "in a list in a dict": pickle.dumps({"model": [{"yaml": Reduced(spring)}]}, protocol=2),
    "as a key": program(b"}", call(SPRING, text("x")), b"K\x01s"),
    "inst": b"(S'x'\ni" + HERE.encode() + b"\nspring\n.",
    "obj": b"(" + SPRING + b"S'x'\no.",
    "stack global": program(text(HERE), text("spring"), b"\x93)R"),
    "from the memory": program(SPRING, b"q\x010", b"h\x01)R"),
    "in a tensor": program(call(name("torch._utils._rebuild_parameter"), call(SPRING, text("x")), b"\x89", b"}")),
    "in an ordered dict": program(call(name("collections.OrderedDict"), call(SPRING, text("x")))),
}
"""Each runs `spring` in an ordinary unpickler, and must be refused."""

INERT: dict[str, bytes] = {
    "setstate": pickle.dumps({"a": Trap()}, protocol=2),
    "setstate, newest": pickle.dumps({"a": Trap()}, protocol=5),
}
"""Each runs `spring` in an ordinary unpickler, and may be read, as records."""

CALLS = (
    *("os.system", "posix.system", "subprocess.Popen", "subprocess.check_output", "builtins.__import__"),
    *("builtins.eval", "builtins.getattr", "builtins.setattr", "builtins.open", "importlib.import_module"),
    *("runpy.run_path", "pty.spawn", "socket.create_connection", "shutil.rmtree", "pickle.loads", "marshal.loads"),
    *("types.FunctionType", "types.CodeType", "copyreg.__newobj__", "copyreg._reconstructor", "torch.load"),
    *("torch.hub.load", "torch.jit.load", "torch._utils._rebuild_device_tensor_from_numpy", "numpy.load"),
    *("torch._utils._rebuild_tensor_v2", "torch._utils._rebuild_parameter", "collections.OrderedDict"),
    *("torch.serialization.load", "torch.nn.modules.linear.Linear", "models.yolo.Model", "models.common.Conv"),
    *("timeit.timeit", "code.interact", "pdb.run", "webbrowser.open", "multiprocessing.util.log_to_stderr"),
)
"""Calls with a text as argument, which are refused whatever they are."""

EVENTS: list[str] = []
WATCHED = ("os.system", "os.exec", "os.posix_spawn", "subprocess.Popen", "pickle.find_class", "import", "exec", "open")
"""What Python itself reports when something is run, imported or opened."""
_watching = False


def _hook(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "exec" and getattr(arguments[0], "co_filename", "").startswith("<@beartype("):
        return  # the tests' own checks of arguments, which are compiled at the first call of a function
    if _watching and event in WATCHED:
        EVENTS.append(event)


sys.addaudithook(_hook)


@contextmanager
def nothing_runs() -> Iterator[None]:
    """Fails if inside it a trap is sprung, or Python imports, runs or opens anything."""
    global _watching
    RAN.clear()
    EVENTS.clear()
    _watching = True
    try:
        yield
    finally:
        _watching = False
    assert not RAN and not EVENTS


# ---------------------------------------------------------------- what would run something


@pytest.mark.parametrize("kind", [*SPRUNG, *INERT])
def test_the_traps_work(kind: str) -> None:
    RAN.clear()
    with suppress(AttributeError, TypeError, ValueError):  # what the trap returns may be of no use to its caller
        pickle.loads({**SPRUNG, **INERT}[kind])
    assert RAN


@pytest.mark.parametrize("kind", SPRUNG)
def test_a_pickle_that_would_run_something_is_refused(kind: str) -> None:
    with nothing_runs(), pytest.raises(RefusedError):
        read_pickle(SPRUNG[kind])


@pytest.mark.parametrize("kind", INERT)
def test_an_object_with_code_of_its_own_stays_a_record(kind: str) -> None:
    with nothing_runs():
        content = read_pickle(INERT[kind])
    record = content["a"]
    assert type(record) is Record and record.name == f"{HERE}.Trap" and record.state == {"a": 1}


def test_a_dict_of_another_class_is_not_made() -> None:
    content = pickle.dumps(TrapDict(), protocol=2)
    RAN.clear()
    pickle.loads(content)
    assert RAN
    with nothing_runs(), pytest.raises(RefusedError, match=r"calls .*TrapDict"):
        read_pickle(content)


@pytest.mark.parametrize("function", CALLS)
def test_calls_are_refused_by_name(function: str) -> None:
    with nothing_runs(), pytest.raises(RefusedError) as caught:
        read_pickle(program(call(name(function), text("touch here"))))
    assert str(caught.value) == f"calls {function}" or "tensor" in str(caught.value)


def test_the_state_of_a_callable_cannot_be_set() -> None:
    """Ordinary unpickling would change the function's defaults."""

    def changed(target: bytes) -> bytes:
        return program(target, b"N}", text("__defaults__"), text("other"), b"\x85s\x86b")

    assert spring.__defaults__ == ("called",)
    pickle.loads(changed(SPRING))
    assert spring.__defaults__ == ("other",)
    spring.__defaults__ = ("called",)
    for target in (SPRING, name("torch._utils._rebuild_tensor_v2"), name("collections.OrderedDict"), text("a"), b")"):
        with nothing_runs(), pytest.raises(RefusedError, match="sets the state of a "):
            read_pickle(changed(target))
    assert spring.__defaults__ == ("called",) and torch._utils._rebuild_tensor_v2.__defaults__ != ("other",)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (program(text("a"), b")R"), "calls a str"),
        (program(b")", b")R"), "calls a tuple"),
        (program(SPRING, b"]R"), "calls a .*spring"),
        (program(b")", b")\x81"), "makes an object of a tuple"),
        (program(b"K\x01", text("a"), b"\x93"), "names a int's str"),
        (program(text("a"), text("b"), text("c"), b"s"), "sets items of a str"),
        (program(b")", text("b"), b"a"), "adds items to a tuple"),
        (program(text("a"), b"Q"), "has a reference that is not a tensor's storage"),
        (
            program(b"(", text("storage"), SPRING, text("0"), text("cpu"), b"K\x01tQ"),
            "has a reference that is not a tensor's storage",
        ),
        (
            program(b"(", text("storage"), name("torch.FloatStorage"), text("0"), text("cpu"), b"J\xff\xff\xff\xfftQ"),
            "ref",
        ),
        (b"Pevil\n.", "instruction PERSID"),
        (program(b"\x82\x01"), "instruction EXT1"),
        (program(b"\x97"), "instruction NEXT_BUFFER"),
        (b"I12\n.", "instruction INT"),
        (b"S'a'\n.", "instruction STRING"),
        (b"", "is damaged"),
        (b".", "is damaged"),
        (b"\x80\x02}", "is damaged"),
        (b"\x80\x02h\x05.", "is damaged"),
        (b"\x80\x02t.", "is damaged"),
        (b"\x80\x02K\x01\x86.", "is damaged"),
        (b"\x80\x02K\x01(K\x02\x86.", "is damaged"),
        (b"\x80\x02}(K\x01u.", "is damaged"),
        (b"\x80\x02X\xff\xff\xff\xffa.", "is damaged"),
        (b"\x80\x02X\x01\x00\x00\x00\xff.", "is damaged"),
        (b"\xff\xfe.", "is damaged"),
        (b"\x80\x02ca b\nc\n.", "is damaged"),
    ],
)
def test_what_is_no_plain_data_is_refused(content: bytes, message: str) -> None:
    with nothing_runs(), pytest.raises(RefusedError, match=message):
        read_pickle(content)


def test_messages_are_one_short_line() -> None:
    with pytest.raises(RefusedError) as caught:
        read_pickle(program(call(text("\x1b[31m") + text("evil\n" * 1000) + b"\x93", text("x"))))
    assert "\n" not in str(caught.value) and "\x1b" not in str(caught.value) and len(str(caught.value)) < 100


# ---------------------------------------------------------------- what is honest


HONEST: list[Any] = [
    *(None, True, False, 0, 255, 65536, -1, 2**40, -(2**70), 1.5, "", "é", b"ab", b"", (), (1,), (1, 2, 3, 4), [], {}),
    {"a": [1, (2, "b")], 3: {"c": None}, 1.5: []},
    [[1, 2], {"x": (1, 2, 3)}] * 3,
]


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_plain_data_is_what_pickle_reads(protocol: int) -> None:
    # Protocol 2 knows no bytes: it calls an encoder, which becomes a record.
    for value in HONEST:
        if protocol > 2 or not isinstance(value, bytes):
            found = read_pickle(pickle.dumps(value, protocol=protocol))
            assert found == value and type(found) is type(value)


def test_facts_of_other_libraries_are_records() -> None:
    facts = {
        "fitness": np.float64(0.5),
        "array": np.array([0.5, 1.0]),
        "set": {1, 2},
        "path": Path("a/b"),
        "size": torch.Size([1, 2]),
        "device": torch.device("cpu"),
        "dtype": torch.float16,
        "bytes": b"a",
        "ordered": collections.OrderedDict(a=1),
    }
    for protocol in (2, 4):
        found = read_pickle(pickle.dumps(facts, protocol=protocol))
        assert found.keys() == facts.keys()
        assert found["ordered"] == {"a": 1} and found["dtype"] == Name("torch", "float16")
        assert all(isinstance(found[key], Record) for key in ("fitness", "array", "set", "path", "size", "device"))


def test_what_contains_itself_is_read() -> None:
    itself: list[Any] = []
    itself.append(itself)
    found = read_pickle(pickle.dumps(itself, protocol=2))
    assert found[0] is found


def test_deep_nesting_ends_well() -> None:
    found = read_pickle(program(b"]" * 5_000, b"a" * 4_999))
    assert len(found) == 1
    del found
    record = program(name("a.b"), b"q\x00", b"h\x00)\x81" * 3_000, b"b" * 2_999)
    assert isinstance(read_pickle(record), Record)


def test_too_many_instructions_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(restricted_pickle, "MAX_INSTRUCTIONS", 1000)
    with pytest.raises(RefusedError, match="more than 1000 instructions"):
        read_pickle(program(b"]" * 1001))


def test_nested_tuples_as_keys_take_no_time() -> None:
    # Hashing the key would take 2^60 steps.
    assert read_pickle(program(b"}", b")", b"q\x00h\x00\x86" * 60, b"K\x01s")) == {}


@pytest.mark.filterwarnings("ignore:invalid escape sequence")
def test_changed_bytes_are_read_or_refused() -> None:
    honest = pickle.dumps({"a": [1, (2.5, "b")], "c": Trap(), "d": collections.OrderedDict(x=Trap())}, protocol=2)
    generator = np.random.default_rng(0)
    refused = 0
    for _ in range(1000):
        content = bytearray(honest)
        for place in generator.integers(0, len(honest), generator.integers(1, 4)):
            content[place] = generator.integers(0, 256)
        RAN.clear()
        try:
            read_pickle(bytes(content))
        except RefusedError:
            refused += 1
        assert not RAN
    assert 100 < refused < 1000


# ---------------------------------------------------------------- files


def torch_zip(path: Path, content: bytes, storages: dict[str, bytes] | None = None, **options: Any) -> Path:
    with zipfile.ZipFile(path, "w", **options) as archive:
        archive.writestr("x/data.pkl", content)
        archive.writestr("x/byteorder", "little")
        for key, values in (storages or {}).items():
            archive.writestr(f"x/data/{key}", values)
    return path


def tensor_program(
    shape: tuple[int, ...], stride: tuple[int, ...], offset: int = 0, numel: int = 6, kind: str = "FloatStorage"
) -> bytes:
    def tuple_of(numbers: tuple[int, ...]) -> bytes:
        return b"(" + b"".join(pickle.dumps(n, protocol=2)[2:-1] for n in numbers) + b"t"

    storage = (
        b"(" + text("storage") + name(f"torch.{kind}") + text("0") + text("cpu") + tuple_of((numel,))[1:-1] + b"tQ"
    )
    rest = (tuple_of((offset,))[1:-1], tuple_of(shape), tuple_of(stride), b"\x89", b"}")
    return program(call(name("torch._utils._rebuild_tensor_v2"), storage, *rest))


VALUES = np.arange(6, dtype="<f4")


@pytest.mark.parametrize(
    "tensor",
    [
        torch.arange(6.0).reshape(2, 3),
        torch.arange(6.0).reshape(2, 3).T,
        torch.arange(12.0)[3:9:2],
        torch.arange(6.0).half(),
        torch.arange(6.0).bfloat16(),
        torch.arange(6.0).double(),
        torch.arange(6),
        torch.tensor([True, False]),
        torch.tensor(3.0),
        torch.zeros(0, 4),
        torch.nn.Parameter(torch.ones(2)),
    ],
)
def test_tensors_are_what_torch_reads(tmp_path: Path, tensor: torch.Tensor) -> None:
    torch.save({"a": tensor, "b": tensor}, tmp_path / "a.pt")
    with open_torch_file(tmp_path / "a.pt") as file:
        stored = file.content["a"]
        assert isinstance(stored, StoredTensor) and stored.shape == tuple(tensor.shape)
        found = file.tensor(stored)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, tensor.detach().float(), atol=0, rtol=0)


@pytest.mark.parametrize(
    ("shape", "stride", "offset", "numel"),
    [
        ((7,), (1,), 0, 6),  # beyond the end
        ((2, 3), (4, 1), 0, 6),
        ((1,), (1,), 6, 6),
        ((1000, 1000), (0, 0), 0, 6),  # one value a million times
        ((7,), (0,), 0, 6),
        ((-1,), (1,), 0, 6),
        ((2,), (-1,), 1, 6),
        ((2,), (1,), -1, 6),
        ((2, 3), (1,), 0, 6),
        ((1,) * 9, (1,) * 9, 0, 6),
    ],
)
def test_tensors_that_do_not_fit_their_storage_are_refused(
    shape: tuple[int, ...], stride: tuple[int, ...], offset: int, numel: int
) -> None:
    with pytest.raises(RefusedError, match="does not fit its storage"):
        read_pickle(tensor_program(shape, stride, offset, numel))


@pytest.mark.parametrize(
    ("content", "storages", "options", "message"),
    [
        (tensor_program((6,), (1,)), {}, {}, "an entry is missing"),
        (tensor_program((6,), (1,)), {"0": VALUES[:5].tobytes()}, {}, "has 20 bytes, not 24"),
        (tensor_program((6,), (1,)), {"0": bytes(1000)}, {}, "1000 bytes, more than 24"),
        (tensor_program((6,), (1,)), {"0": (VALUES * np.nan).tobytes()}, {}, "not finite"),
    ],
)
def test_values_that_do_not_fit_are_refused(
    tmp_path: Path, content: bytes, storages: dict[str, bytes], options: dict[str, Any], message: str
) -> None:
    torch_zip(tmp_path / "a.pt", content, storages, **options)
    with open_torch_file(tmp_path / "a.pt") as file, pytest.raises(WeightsError, match=message):
        file.tensor(file.content)


def test_a_handmade_tensor_is_read(tmp_path: Path) -> None:
    """So that the refusals above are those of the change alone."""
    with open_torch_file(torch_zip(tmp_path / "a.pt", tensor_program((2, 3), (3, 1)), {"0": VALUES.tobytes()})) as file:
        assert file.tensor(file.content).tolist() == [[0, 1, 2], [3, 4, 5]]


def test_a_file_that_would_run_something_is_refused(tmp_path: Path) -> None:
    for number, content in enumerate(SPRUNG.values()):
        path = torch_zip(tmp_path / f"{number}.pt", content)
        RAN.clear()
        with (
            pytest.raises(WeightsError, match=r"\.pt: its pickle .*refused, and none of it was run"),
            open_torch_file(path),
        ):
            pass
        assert not RAN


def test_files_that_are_no_torch_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    bomb = {"compression": zipfile.ZIP_DEFLATED}
    with zipfile.ZipFile(tmp_path / "empty.pt", "w"):
        pass
    with zipfile.ZipFile(tmp_path / "two.pt", "w") as archive:
        archive.writestr("x/data.pkl", b"N.")
        archive.writestr("y/data.pkl", b"N.")
    with zipfile.ZipFile(tmp_path / "big.pt", "w") as archive:
        archive.writestr("x/data.pkl", b"N.")
        archive.writestr("x/byteorder", "big")
    torch.save({"a": torch.ones(2)}, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    (tmp_path / "text.pt").write_text("hello")
    honest = torch_zip(path, b"N.").read_bytes()
    (tmp_path / "cut.pt").write_bytes(honest[:-10])
    encrypted = bytearray(honest)
    for mark, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        encrypted[honest.index(mark) + offset] |= 1
    (tmp_path / "locked.pt").write_bytes(encrypted)
    wrong_sum = bytearray(honest)
    wrong_sum[honest.index(b"N.")] = ord("(")
    (tmp_path / "sum.pt").write_bytes(wrong_sum)
    expected = {
        "gone": "no such file",
        "empty": "no data.pkl",
        "two": "no data.pkl",
        "big": "big-endian",
        "old": "no zip as torch.save writes since 1.6",
        "text": "no zip",
        "cut": "no zip",
        "locked": "is damaged",
        "sum": "is damaged",
    }
    torch_zip(tmp_path / "bomb.pt", b"]" * 10_000_000 + b".", **bomb)
    torch_zip(tmp_path / "long.pt", b"]" * 17_000_000 + b".")
    for stem, message in {**expected, "bomb": "is compressed", "long": "more than 16777216"}.items():
        with (
            pytest.raises(WeightsError, match=rf"{stem}\.pt: .*{message}") as caught,
            open_torch_file(tmp_path / f"{stem}.pt"),
        ):
            pass
        assert "\n" not in str(caught.value)


def test_keys_that_have_one_hash_are_left_out() -> None:
    """Dictionaries of them take a time that grows with the square of their number."""
    same = {number * (2**61 - 1): number for number in range(1, 5)}
    assert {hash(key) for key in same} == {0}
    target: dict[object, object] = {}
    _set_items(target, [item for pair in {**same, 3: "three", "a": 1}.items() for item in pair])
    assert target == {3: "three", "a": 1}
