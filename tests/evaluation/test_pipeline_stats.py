"""What policies chose: counts, places and parameters by hand."""

from collections.abc import Sequence

import pytest

from adaptiveisp.evaluation.pipeline_stats import (
    MOST_MODULES,
    FoundPipeline,
    ImageRun,
    as_planned,
    frequent_pipelines,
    parameters_by_light,
    place_shares,
)
from adaptiveisp.isp.pipeline import Pipeline, Stage


def run(modules: Sequence[str] | None, light: float | None = 0.1, **params: float) -> ImageRun:
    pipeline = None if modules is None else tuple((module, params) for module in modules)
    return ImageRun("p", 1, 0, light, pipeline, {"d": 0.5})


def test_the_most_frequent_sequences_with_their_light() -> None:
    twice = [run(["exposure", "gamma"], 0.01), run(["exposure", "gamma"], 0.04)]
    runs = [run(["gamma"], 0.5), *twice, run([], None), run(None)]
    first, *others = frequent_pipelines(runs)
    assert (first.modules, first.count, first.share) == (("exposure", "gamma"), 2, 0.5)
    assert first.light_mean == pytest.approx(0.02), "the root of 0.01 · 0.04"
    assert others == [FoundPipeline(("gamma",), 1, 0.25, 0.5), FoundPipeline((), 1, 0.25, None)]
    assert frequent_pipelines([run(None)]) == []


def test_the_share_of_each_module_at_each_place() -> None:
    runs = [run(["exposure", "gamma"]), run(["exposure"]), run(["gamma", "exposure", "gamma"]), run([]), run(None)]
    assert place_shares(runs) == [{"exposure": 0.5, "gamma": 0.25}, {"gamma": 0.25, "exposure": 0.25}, {"gamma": 0.25}]
    assert place_shares([run([])]) == place_shares([]) == []


def test_parameters_come_with_the_light_of_their_images() -> None:
    runs = [run(["exposure"], 0.1, ev=2.0), run(["exposure", "exposure"], 0.2, ev=1.0), run(["exposure"], None, ev=9.0)]
    first, second = parameters_by_light([*runs, run(None), run(["srgb"])])
    assert (first.module, first.param, first.unit, first.reach) == ("exposure", "ev", "stops", 20.0)
    assert (first.lights, first.values) == ((0.1, 0.2), (2.0, 1.0))
    assert (second.module, second.lights, second.values) == ("exposure (2)", (0.2,), (1.0,))


def test_the_most_used_modules_and_what_varies_most_are_shown() -> None:
    params = {"black_level": "offset", "contrast": "amount", "denoise": "h", "desaturation": "amount", "exposure": "ev",
              "gamma": "gamma", "saturation": "amount", "sharpen": "factor", "gray_world": "amount"}  # fmt: skip
    names = list(params)
    # Each is used once more than the one before it, and runs before it.
    runs = [
        ImageRun("p", i, 0, 0.1, tuple((name, {params[name]: 0.5}) for name in reversed(names[i:])), {})
        for i in range(len(names))
    ]
    assert [one.module for one in parameters_by_light(runs)] == list(reversed(names[1:])) and MOST_MODULES == 8
    entries = {a + b: float(a == b) for a in "rgb" for b in "rgb"}
    moved = [entries, {**entries, "rg": 0.1, "gb": -0.3, "br": 0.2, "gg": 1.05}]
    series = parameters_by_light([ImageRun("p", 1, i, 0.1, (("ccm", p),), {}) for i, p in enumerate(moved)])
    assert [one.param for one in series] == ["rg", "gb", "br"]


def test_a_line_of_the_file() -> None:
    planned = as_planned(Pipeline((Stage("exposure", {"ev": 1.0}), Stage("srgb", {}))))
    assert ImageRun("p", 7, 2, 0.25, planned, {"d": 0.5, "e": None}).to_json() == {
        "policy": "p", "photo": 7, "draw": 2, "light": 0.25, "modules": ["exposure", "srgb"],
        "params": [{"ev": 1.0}, {}], "loss": {"d": 0.5, "e": None},
    }  # fmt: skip
    unknown = ImageRun("camera", 7, 2, None, as_planned(None), {}).to_json()
    assert unknown["modules"] is unknown["params"] is unknown["light"] is None
