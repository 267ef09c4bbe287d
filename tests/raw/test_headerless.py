"""Which fact about a raw wins: flags, its own sidecar, the data-set YAML, the sidecar of the folder, the layout."""

from pathlib import Path

import numpy as np
import pytest

from adaptiveisp.data.frame_cache import FrameCache
from adaptiveisp.data.opening import open_dataset
from adaptiveisp.errors import RawFileError, UsageError
from adaptiveisp.raw.headerless import BayerHeader, SetHeader, _plain_facts
from adaptiveisp.raw.reader import read_raw
from adaptiveisp.raw.sidecars import find_header
from tests.support import layouts

NOTHING = dict.fromkeys(("width", "height", "bits", "pattern", "black", "white"))
SOURCES = ("flags", "own sidecar", "set", "folder sidecar", "layout")


@pytest.mark.parametrize("missing", range(len(SOURCES)))
def test_the_nearest_and_most_explicit_fact_wins(tmp_path: Path, missing: int) -> None:
    """Source i states bits 8 + i; with the first `missing` of them silent, the next one is heard."""
    names = SOURCES[missing:]
    path = tmp_path / "x.raw"
    if "own sidecar" in names:
        (tmp_path / "x.raw.yaml").write_text("raw-bits: 9\n")
    if "folder sidecar" in names:
        (tmp_path / "raw.yaml").write_text("raw-bits: 11\nraw-pattern: GRBG\n")
    assert find_header(path, BayerHeader(bits=8)).bits == 8  # flags win over both sidecars
    stated = BayerHeader(bits=10) if "set" in names else BayerHeader()
    header = SetHeader.of(stated, BayerHeader(2880, 1856, 12, "RGGB"))
    found = find_header(path, header)
    assert type(found) is BayerHeader
    assert found.bits == {0: 9, 1: 9, 2: 10, 3: 11, 4: 12}[missing]
    assert found.pattern == ("GRBG" if "folder sidecar" in names else "RGGB") and found.width == 2880
    assert find_header(path, header.without_layout()).width is None


def test_sidecars_complete_each_other(tmp_path: Path) -> None:
    (tmp_path / "raw.yaml").write_text("raw-size: 26x20\nraw-bits: 10\nraw-pattern: GRBG\nraw-black: 64\n")
    (tmp_path / "x.yaml").write_text("raw-black: [60, 61, 62, 63]\n")
    found = find_header(tmp_path / "x.raw", None)
    assert found == BayerHeader(26, 20, 10, "GRBG", (60.0, 61.0, 62.0, 63.0))
    assert find_header(tmp_path / "y.raw", BayerHeader(white=1000.0)) == BayerHeader(26, 20, 10, "GRBG", 64.0, 1000.0)


def test_raws_of_another_size_than_their_layout_says(tmp_path: Path) -> None:
    """ROD's layout takes 2880x1856 for granted; a sidecar of a smaller raw knows better."""
    path = layouts.rod(tmp_path)
    path.write_text("".join(line for line in path.read_text().splitlines(True) if not line.startswith("raw-size")))
    data = Path(f"{path}:train")
    sample = open_dataset(data).samples[0]
    with pytest.raises(RawFileError, match=r"2880x1856 with 24 bits needs 16035840 bytes, .*data-set YAML"):
        open_dataset(data).read(sample)
    raw_file = tmp_path / "train" / "day-00001.raw"
    raw_file.with_name("day-00001.raw.yaml").write_text(f"raw-size: {layouts.WIDTH}x{layouts.HEIGHT}\n")
    dataset = open_dataset(data)
    raw = dataset.read(dataset.samples[0])
    assert raw.data.shape == (layouts.HEIGHT, layouts.WIDTH) and raw.white_level == 2**24 - 1
    assert (dataset.samples[0].width, dataset.samples[0].height) == (layouts.WIDTH, layouts.HEIGHT)
    path.write_text(path.read_text() + "raw-size: 10x10\n")  # the file's own sidecar is nearer than the YAML
    assert open_dataset(data).read(dataset.samples[0]).data.shape == raw.data.shape


def test_a_layouts_size_does_not_concern_arrays(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.random.default_rng(0).uniform(0, 1000, (48, 64)).astype(np.float32))
    unstated = SetHeader.of(BayerHeader(white="p99"), BayerHeader(2880, 1856, 24, "RGGB"))
    assert read_raw(tmp_path / "x.npy", unstated).remarks == ()
    (remark,) = read_raw(tmp_path / "x.npy", SetHeader.of(BayerHeader(30, 20, white="p99"), unstated.layout)).remarks
    assert "though --raw-size says 30x20" in remark.text


def test_a_changed_sidecar_is_another_cached_frame(tmp_path: Path) -> None:
    cache = FrameCache(tmp_path / "cache")
    path = tmp_path / "x.raw"
    path.write_bytes(bytes(100))
    header = SetHeader.of(BayerHeader(), BayerHeader(10, 10, 8, "RGGB"))
    first = cache.key(path, header, "")
    assert cache.key(path, BayerHeader(10, 10, 8, "RGGB"), "") == first  # the same facts from elsewhere
    (tmp_path / "x.yaml").write_text("raw-black: 3\n")
    assert cache.key(path, header, "") != first


@pytest.mark.parametrize("text", ["raw-bits: 10.7", "raw-bits: true", "raw-black: false", "raw-black: [1, 2, 3, true]"])
def test_values_are_not_bent_into_numbers(tmp_path: Path, text: str) -> None:
    (tmp_path / "x.yaml").write_text(text)
    with pytest.raises(RawFileError, match=r"x\.yaml: a value has the wrong type"):
        find_header(tmp_path / "x.raw", None)


def test_levels_of_a_header_may_be_a_list() -> None:
    header = BayerHeader(black=(60, 61, 62, 63), white=1000)
    assert header.black_levels == (60.0, 61.0, 62.0, 63.0)
    for levels in ([60, 61, 62, 63], np.array([60, 61, 62, 63])):
        found = _plain_facts({**NOTHING, "black": levels, "white": np.float32(1000), "bits": np.int64(10)})
        assert found["black"] == header.black and type(found["white"]) is float and type(found["bits"]) is int


@pytest.mark.parametrize(
    ("facts", "message"),
    [
        ({"bits": 10.5}, r"raw bits 10\.5 is not a whole number"),
        ({"bits": True}, "raw bits True is not a whole number"),
        ({"width": "640"}, "raw width '640' is not a whole number"),
        ({"black": "64"}, "raw black '64' is not a number"),
        ({"black": [1, 2]}, "raw-black takes one number or four"),
        ({"black": [1, 2, 3, None]}, "raw-black takes one number or four"),
        ({"white": "p98"}, "raw white 'p98' is not a number or p99"),
    ],
)
def test_facts_of_a_wrong_type_are_one_line(facts: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        _plain_facts({**NOTHING, **facts})
