"""`AdaptiveISP.map`: order, equality with single calls, bounded memory, bad frames, sources, and pickles."""

import functools
import http.server
import io
import pickle
import tarfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from adaptiveisp import AdaptiveISP, BayerHeader, RawImage, load_policy
from adaptiveisp.detectors.darknet.loading import load_darknet
from adaptiveisp.errors import RawFileError, UsageError
from adaptiveisp.inference.batch import run_files
from adaptiveisp.inference.frames import find_frames
from adaptiveisp.inference.journal import Journal
from adaptiveisp.inference.mapping import AHEAD, Skipped, is_thread_safe
from adaptiveisp.inference.result import Result
from adaptiveisp.inference.run_options import RunOptions
from adaptiveisp.raw.dng import write_dng
from adaptiveisp.types import Detections
from adaptiveisp.utils.output_folder import claim_folder
from tests.support.darknet_cfg import write_mixed
from tests.support.fake_detector import RedDetector


class SafeRed(RedDetector):
    thread_safe = True


def raw(seed: int, side: int = 64) -> RawImage:
    codes = np.random.default_rng(seed).integers(300, 3000, (48, side), dtype=np.uint16)
    codes[12:24, 16:32] = np.tile([[3900, 400], [400, 300]], (6, 8)).astype(np.uint16)
    return RawImage(codes, "RGGB", (256.0,) * 4, 4095.0, (2.0, 1.0, 1.6))


def folder_of(place: Path, count: int) -> Path:
    place.mkdir()
    for number in range(count):
        write_dng(raw(number), place / f"{number}.dng")
    return place


def facts(result: Any) -> Any:
    """What two results of the same frame must share; times differ."""
    assert isinstance(result, Result)
    return result.boxes(), result.pipeline, result.image.numpy().tobytes(), result.full_size


@pytest.mark.parametrize("workers", [0, 1, 3])
@pytest.mark.parametrize("batch_size", [1, 4])
def test_results_come_in_order_and_equal_those_of_single_calls(workers: int, batch_size: int) -> None:
    isp = AdaptiveISP("auto-exposure", SafeRed(), size=64)
    raws = [raw(n, 64 + 16 * (n % 3)) for n in range(11)]
    found = list(isp.map(raws, batch_size, workers=workers))
    assert [facts(one) for one in found] == [facts(isp(one)) for one in raws]
    assert [one.frame for one in found] == [f"frame {n}" for n in range(11)]


def test_few_frames_are_taken_before_they_are_wanted() -> None:
    taken = []

    def endless() -> Iterator[RawImage]:
        while True:
            taken.append(1)
            yield raw(0)

    isp = AdaptiveISP("none", SafeRed(), size=64)
    results = isp.map(endless(), 2, workers=2)
    for number in range(1, 8):
        next(results)
        time.sleep(0.02)  # a slow caller
        assert len(taken) <= number + 1 + 2 * (2 + AHEAD + 1)
    results.close()
    count = len(taken)
    time.sleep(0.05)
    assert len(taken) == count and threading.active_count() < 20


def test_a_result_holds_the_frame_only_when_asked() -> None:
    isp = AdaptiveISP("auto-exposure", SafeRed(), size=64)
    (bare,) = isp.map([raw(1, 4000)])
    (whole,) = isp.map([raw(1, 4000)], keep_frames=True)
    assert isinstance(bare, Result) and isinstance(whole, Result)
    assert len(pickle.dumps(bare)) < 40_000 < len(pickle.dumps(whole))
    with pytest.raises(UsageError, match="keep_frames=True"):
        isp.render_full(bare)
    assert torch.equal(isp.render_full(whole), isp.render_full(isp(raw(1, 4000))))


def test_bad_frames_are_skipped_in_their_place_or_raised(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "in", 3)
    (folder / "1.dng").write_text("no raw")
    isp = AdaptiveISP("none", SafeRed(), size=64)
    frames = [folder / "0.dng", folder / "1.dng", tmp_path / "gone.dng", ("mine", folder / "2.dng"), b"", raw(1)]
    for batch_size in (1, 4):
        found = list(isp.map(frames, batch_size))
        assert [type(one) for one in found] == [Result, Skipped, Skipped, Result, Skipped, Result]
        named = [str(folder / "1.dng"), str(tmp_path / "gone.dng"), "mine", "frame 4", "frame 5"]
        assert [one.frame for one in found][1:] == named
        assert isinstance(found[2], Skipped) and "no such file" in found[2].reason
    with pytest.raises(RawFileError, match=r"1\.dng"):
        list(isp.map(frames, on_error="raise"))
    for arguments in ({"batch_size": 0}, {"workers": -1}):
        with pytest.raises(UsageError):
            list(isp.map([raw(0)], **arguments))
    with pytest.raises(UsageError, match="int"):
        list(isp.map(3))


def test_one_bad_answer_of_a_batch_spoils_no_other() -> None:
    class Moody(SafeRed):
        def detect(self, image: torch.Tensor, **options: Any) -> list[Detections]:  # type: ignore[override]
            if (image.amax(dim=(1, 2, 3)) > 0.99).any():
                raise ValueError("too bright")
            return super().detect(image, **options)

    bright = RawImage(np.full((48, 64, 3), 65535, np.uint16), None, 0.0, 65535.0)
    dark = RawImage(np.full((48, 64, 3), 3000, np.uint16), None, 0.0, 65535.0)
    found = list(AdaptiveISP("none", Moody(), size=64).map([dark, bright, dark], 3))
    assert [type(one) for one in found] == [Result, Skipped, Result]


def test_code_from_outside_runs_on_one_frame_at_a_time() -> None:
    class Counting(RedDetector):
        def __init__(self) -> None:
            self.now = self.most = 0

        def detect(self, image: torch.Tensor, **options: Any) -> list[Detections]:  # type: ignore[override]
            self.now += 1
            self.most = max(self.most, self.now)
            time.sleep(0.01)
            self.now -= 1
            return super().detect(image, **options)

    detector = Counting()
    isp = AdaptiveISP("none", detector, size=64)
    assert len(list(isp.map([raw(n) for n in range(8)], workers=4))) == 8
    assert detector.most == 1

    class Own:
        name = "own"

        def plan(self, image: torch.Tensor) -> list[Any]:
            return load_policy("none").plan(image)

    assert is_thread_safe(AdaptiveISP("none", SafeRed(), size=64))
    assert not is_thread_safe(AdaptiveISP(Own(), SafeRed(), size=64))
    assert not is_thread_safe(isp)


def test_contents_arrays_and_open_files(tmp_path: Path) -> None:
    path = folder_of(tmp_path / "in", 1) / "0.dng"
    isp = AdaptiveISP("auto-exposure", SafeRed(), size=64)
    array = np.random.default_rng(0).integers(300, 3000, (48, 64), dtype=np.uint16)
    header = BayerHeader(bits=12, pattern="RGGB")
    found = list(isp.map([path.read_bytes(), open(path, "rb"), path], 2))  # noqa: SIM115
    assert [facts(one) for one in found] == [facts(isp(path))] * 3
    (one,) = isp.map([("a", array)], header=header)
    assert facts(one) == facts(isp(array, header)) and isinstance(one, Result) and one.to_json()["file"] == "a"


# sources behind addresses


def test_memory_addresses(tmp_path: Path) -> None:
    fsspec = pytest.importorskip("fsspec", reason="fsspec is not installed")
    folder = folder_of(tmp_path / "in", 3)
    system = fsspec.filesystem("memory")
    for path in folder.iterdir():
        system.pipe(f"/map-test/night/{path.name}", path.read_bytes())
    system.pipe("/map-test/notes.txt", b"no raw")
    isp = AdaptiveISP("auto-exposure", SafeRed(), size=64)
    expected = [facts(isp(folder / f"{n}.dng")) for n in range(3)]
    addresses = [f"memory://map-test/night/{n}.dng" for n in range(3)]
    for frames in (addresses, "memory://map-test/night", "memory://map-test/", "memory://map-test/night/*.dng"):
        found = list(isp.map(frames))
        assert [facts(one) for one in found] == expected
        assert [one.frame.split("://")[1].strip("/") for one in found] == [a.split("://")[1] for a in addresses]
    (gone,) = isp.map(["memory://map-test/gone.dng"])
    assert isinstance(gone, Skipped) and "memory://map-test/gone.dng: cannot be read (no such file)" in gone.reason
    with pytest.raises(RawFileError, match="holds no raw files"):
        list(isp.map("memory://map-nothing/", on_error="raise"))
    assert facts(isp(addresses[0])) == expected[0]
    with pytest.raises(RawFileError, match="nonsense"):
        list(isp.map(["nonsense://a.dng"], on_error="raise"))


def test_an_http_server(tmp_path: Path) -> None:
    pytest.importorskip("aiohttp", reason="aiohttp, by which fsspec reads http, is not installed")
    folder = folder_of(tmp_path / "in", 2)

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: Any) -> None: ...

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(folder))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        base = f"http://127.0.0.1:{server.server_port}"
        isp = AdaptiveISP("auto-exposure", SafeRed(), size=64)
        found = list(isp.map([f"{base}/0.dng", f"{base}/1.dng?token=3", f"{base}/2.dng"]))
        server.shutdown()
    assert [facts(one) for one in found[:2]] == [facts(isp(folder / f"{n}.dng")) for n in range(2)]
    assert isinstance(found[2], Skipped) and "2.dng: cannot be read" in found[2].reason


# tar shards


def shard_of(path: Path, files: dict[str, bytes], mode: Any = "w") -> Path:
    with tarfile.open(path, mode) as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return path


def test_tar_shards(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = folder_of(tmp_path / "in", 3)
    contents = {f"a/{n}.dng": (folder / f"{n}.dng").read_bytes() for n in range(3)}
    shard = shard_of(tmp_path / "s.tar", {"a/0.json": b"{}", **contents, ".hidden.dng": b"x", "a/0.yaml": b""})
    isp = AdaptiveISP("auto-exposure", SafeRed(), size=64)
    found = list(isp.map(str(shard), 2))
    assert [facts(one) for one in found] == [facts(isp(folder / f"{n}.dng")) for n in range(3)]
    assert [one.frame for one in found] == [f"{shard}::a/{n}.dng" for n in range(3)]
    assert "s.tar: its .yaml files are not read" in caplog.text
    fsspec = pytest.importorskip("fsspec", reason="fsspec is not installed")
    fsspec.filesystem("memory").pipe("/map-tars/s.tar", shard.read_bytes())
    assert [facts(one) for one in isp.map("memory://map-tars/s.tar")] == [facts(one) for one in found]
    short = tmp_path / "short.tar"
    short.write_bytes(shard.read_bytes()[: shard.stat().st_size // 3])
    with pytest.raises(RawFileError, match=r"short.tar: is no tar file, or damaged \(unexpected end of data\)"):
        list(isp.map(str(short), on_error="raise"))
    for bad, reason in (
        (shard_of(tmp_path / "z.tar", contents, "w:gz"), "uncompressed"),
        (shard_of(tmp_path / "none.tar", {"a.txt": b"x"}), "holds no raw files"),
    ):
        (skipped,) = isp.map(str(bad))
        assert isinstance(skipped, Skipped) and skipped.frame == str(bad) and reason in skipped.reason


@pytest.mark.parametrize("workers", [0, 2])
def test_a_shard_or_folder_that_cannot_be_used_is_skipped_in_its_place(workers: int, tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "in", 3)
    contents = {f"{n}.dng": (folder / f"{n}.dng").read_bytes() for n in range(3)}
    (tmp_path / "shards").mkdir()
    shards = [shard_of(tmp_path / "shards" / f"{n}.tar", {f"{n}.dng": contents[f"{n}.dng"]}) for n in range(3)]
    shards[1].write_bytes(shards[1].read_bytes()[:700])
    (tmp_path / "empty").mkdir()
    isp = AdaptiveISP("auto-exposure", SafeRed(), size=64)
    expected = [facts(isp(folder / f"{n}.dng")) for n in (0, 2)]
    good = [f"{shards[n]}::{n}.dng" for n in (0, 2)]
    found = list(isp.map([str(one) for one in shards], 2, workers=workers))
    assert [one.frame for one in found] == [good[0], str(shards[1]), good[1]]
    assert isinstance(found[1], Skipped) and found[1].reason.startswith(f"{shards[1]}: is no tar file, or damaged")
    assert [facts(found[place]) for place in (0, 2)] == expected
    found = list(isp.map(str(tmp_path / "shards" / "*.tar"), workers=workers))  # one text names good and bad ones
    assert [one.frame for one in found] == [*good, str(shards[1])] and isinstance(found[2], Skipped)
    for shard in shards:
        shard.write_bytes(b"no tar")
    found = list(isp.map(str(tmp_path / "shards" / "*.tar"), workers=workers))
    assert [(type(one), one.frame) for one in found] == [(Skipped, str(shard)) for shard in shards]
    inputs = [str(tmp_path / "empty"), str(tmp_path / "*.nef"), str(folder / "0.dng")]
    found = list(isp.map(inputs, 2, workers=workers))
    assert [type(one) for one in found] == [Skipped, Skipped, Result] and [one.frame for one in found] == inputs
    with pytest.raises(RawFileError, match="no raw files in"):
        list(isp.map(inputs, workers=workers, on_error="raise"))


def test_shards_of_webdataset(tmp_path: Path) -> None:
    webdataset = pytest.importorskip("webdataset", reason="webdataset is not installed")
    folder = folder_of(tmp_path / "in", 2)
    with webdataset.TarWriter(str(tmp_path / "w.tar")) as writer:
        for n in range(2):
            writer.write({"__key__": f"{n:04}", "dng": (folder / f"{n}.dng").read_bytes(), "cls": n})
    isp = AdaptiveISP("auto-exposure", SafeRed(), size=64)
    found = list(isp.map(tmp_path / "w.tar"))
    assert [facts(one) for one in found] == [facts(isp(folder / f"{n}.dng")) for n in range(2)]


def test_full_frames_are_rendered_one_at_a_time_by_a_policy_that_is_not_thread_safe(quiet_place: None) -> None:
    inside, most = [0], [0]

    class Own(type(load_policy("auto-exposure"))):  # type: ignore[misc]
        def _counted(self, work: Any) -> Any:
            inside[0] += 1
            most[0] = max(most[0], inside[0])
            time.sleep(0.02)
            made = work()
            inside[0] -= 1
            return made

        def render(self, *arguments: Any) -> Any:
            return self._counted(lambda: super(Own, self).render(*arguments))

        def render_full(self, *arguments: Any) -> Any:
            return self._counted(lambda: super(Own, self).render_full(*arguments))

    folder_of(Path("in"), 8)
    isp = AdaptiveISP(Own(), SafeRed(), size=64)
    assert not is_thread_safe(isp)
    frames, _ = find_frames(["in"])
    with claim_folder(Path("out"), "run", False), Journal(Path("out"), {}) as journal:
        summary = run_files(isp, frames, journal, RunOptions(full=True, workers=4), {})
    assert summary.n_results == 8 and most[0] == 1


# pickles


@pytest.mark.parametrize("name", ["coco-adaptive", "coco-selective", "auto-exposure", "camera", "night", "reinhard"])
def test_policies_and_results_can_be_pickled_before_and_after_use(name: str, tmp_path: Path) -> None:
    path = folder_of(tmp_path / "in", 1) / "0.dng"
    isp = AdaptiveISP(name, RedDetector(), size=64)
    fresh = pickle.loads(pickle.dumps(isp))
    expected = isp(path)
    used = pickle.loads(pickle.dumps(isp))
    assert facts(fresh(path)) == facts(used(path)) == facts(expected) == facts(pickle.loads(pickle.dumps(expected)))


def test_detectors_can_be_pickled(tmp_path: Path) -> None:
    detector = load_darknet(*write_mixed(tmp_path), ("cat", "dog"), "mixed")
    image = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    again = pickle.loads(pickle.dumps(detector))
    expected, found = detector.detect(image, confidence=0.0)[0], again.detect(image, confidence=0.0)[0]
    assert len(expected.boxes) and torch.equal(expected.boxes, found.boxes)
    assert torch.equal(expected.scores, found.scores)
