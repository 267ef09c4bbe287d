"""`synthesize` and `SynthesisConfig`: what the command `synth` does, and the ways to ask for raws made of photos."""

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import adaptiveisp
from adaptiveisp import SynthesisConfig, open_dataset, synthesize
from adaptiveisp.cli.parser import main
from adaptiveisp.data.synthetic import SyntheticRaws
from adaptiveisp.errors import DataError, UsageError
from tests.support.photos import labelled_photos

pytest.importorskip("imagecodecs")


def test_a_set_is_what_the_command_makes(tmp_path: Path) -> None:
    labels, images = labelled_photos(tmp_path, n=3), tmp_path / "images"
    config = SynthesisConfig("dark,normal", draws=2, noise="brooks", seed=7)
    names: list[str] = []
    summary = synthesize(config, str(labels), images, tmp_path / "python", limit=2, on_image=names.append)
    where = ["--data", str(labels), "--images", str(images), "--out", str(tmp_path / "command")]
    flags = ["--light", "dark,normal", "--draws", "2", "--noise", "brooks", "--seed", "7", "--limit", "2", "--quiet"]
    assert main(["synth", *where, *flags]) == 0
    assert summary.written == {"dark": 4, "normal": 4} and summary.skipped == [] and len(names) == 8
    made, told = (sorted(p.relative_to(o) for p in o.rglob("*.*")) for o in (tmp_path / "python", tmp_path / "command"))
    assert made == told and len([path for path in made if path.suffix == ".png"]) == 8
    for name in made:
        ours, theirs = ((tmp_path / folder / name).read_bytes() for folder in ("python", "command"))
        if name.suffix == ".json":
            contents = [json.loads(content) for content in (ours, theirs)]
            for content in contents:  # the commands differ, which the provenance says
                content.pop("provenance", None)
                content.get("info", {}).pop("provenance", None)
            assert contents[0] == contents[1]
        elif name.suffix == ".png":
            assert ours == theirs
    options = json.loads((tmp_path / "python" / "dark" / "labels.json").read_text())["info"]["options"]
    assert options == {
        **{"lights": ["dark", "normal"], "draws": 2, "format": "png16"},
        **{"noise": "brooks", "seed": 7, "limit": 2, "bits": 0, "camera_matrix": "brooks", "illuminants": "daylight"},
    }


def test_a_folder_is_claimed_and_notes_are_warned_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    labels, images = labelled_photos(tmp_path, n=1), tmp_path / "images"
    content = json.loads(labels.read_text())
    content["annotations"] += [{**content["annotations"][0], "id": 99}]
    labels.write_text(json.dumps(content))
    with caplog.at_level(logging.WARNING, "adaptiveisp"):
        synthesize(SynthesisConfig("dark"), labels, images, tmp_path / "out")
    assert any("labelled more than once" in message for message in caplog.messages)
    with pytest.raises(UsageError, match="exists already"):
        synthesize(SynthesisConfig("dark"), labels, images, tmp_path / "out")
    assert synthesize(SynthesisConfig("normal"), labels, images, tmp_path / "out", overwrite=True).written == {
        "normal": 1
    }
    with pytest.raises(DataError, match="no such photo"):
        synthesize(SynthesisConfig("dark"), labels, tmp_path, tmp_path / "none")
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"light": "dusk"}, "light 'dusk' does not exist; choose from dark, mixed, normal"),
        ({"light": "dark,dusk"}, "light 'dusk' does not exist"),
        ({"light": " , "}, "light ' , ' names no light; choose from dark, mixed, normal"),
        ({"bits": 3}, "bits 3 is no depth of a raw; give a whole number from 4 to 14, or 0 for the depth of the noise"),
        ({"camera_matrix": "nikon"}, "camera_matrix 'nikon' does not exist; choose from brooks, canon-5d4, "),
        ({"draws": 0}, "draws must be at least 1"),
        ({"seed": -1}, "seed must not be negative"),
    ],
)
def test_impossible_configurations_are_one_line(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        SynthesisConfig(**{"light": "dark", **fields})
    assert "\n" not in str(caught.value)


def test_lights_are_named_once_each() -> None:
    config = SynthesisConfig(" dark, normal,dark")
    assert (config.light, config.lights) == ("dark,normal", ("dark", "normal"))


def test_a_dataset_is_asked_for_in_three_ways(tmp_path: Path) -> None:
    labels, images = labelled_photos(tmp_path, n=2), tmp_path / "images"
    config = SynthesisConfig("mixed", draws=2, noise="none", seed=3)
    wanted = SyntheticRaws(labels, images, config)
    for found in (
        open_dataset(labels, images, config),
        open_dataset(str(labels), str(images), light="mixed", draws=2, noise="none", seed=3),
    ):
        assert found.name == wanted.name and found.samples == wanted.samples
        for sample in found.samples:
            np.testing.assert_array_equal(found.read(sample).data, wanted.read(sample).data)
    assert open_dataset(labels, images, "mixed").samples == open_dataset(labels, images, light="mixed").samples
    with pytest.raises(UsageError, match=r"^draws: give synthesis=SynthesisConfig\(light, …\) alone, or light"):
        open_dataset(labels, images, draws=2)
    with pytest.raises(UsageError, match=r"^light: give synthesis"):
        open_dataset(labels, images, config, light="dark")
    with pytest.raises(UsageError, match=r"^open_dataset: setting 'drwas' does not exist"):
        open_dataset(labels, images, light="dark", drwas=2)
    with pytest.raises(UsageError, match="light 'dark,normal' names 2 lights"):
        open_dataset(labels, images, "dark,normal")
    assert adaptiveisp.synthesize is synthesize
