"""What --policy may say: paths with an equals sign, groups of runs, and what is wrong in one line."""

from pathlib import Path

import pytest
import torch

from adaptiveisp.errors import UsageError
from adaptiveisp.isp.pipeline import Pipeline, Stage
from adaptiveisp.policies import registry
from adaptiveisp.policies.base import as_policy
from adaptiveisp.policies.fixed import FixedPipeline
from adaptiveisp.policies.heuristics import AutoExposure, CameraDevelopment
from adaptiveisp.policies.registry import load_policies, load_policy, register_policy, split_group


@pytest.fixture(autouse=True)
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name, stops in (("run-1", 1.0), ("run-2", 2.0), ("lr=0.1", 3.0), ("a=b,c", 4.0)):
        Pipeline((Stage("exposure", {"ev": stops}),)).save(tmp_path / name / "best.json")


def stops_of(policy: object) -> float:
    assert isinstance(policy, FixedPipeline)
    return policy.pipeline.stages[0].params["ev"]


def test_a_group_names_its_members_by_number() -> None:
    policies, groups = load_policies(["none", "ours=run-1,run-2", "camera", "none"])
    assert [policy.name for policy in policies] == ["none", "ours/1", "ours/2", "camera"]
    assert groups == {"ours": ("ours/1", "ours/2")}
    assert [stops_of(policy) for policy in policies[1:3]] == [1.0, 2.0]
    named, _ = load_policies(["all=camera,auto-exposure,none"])
    assert [type(policy) for policy in named] == [CameraDevelopment, AutoExposure, FixedPipeline]
    assert load_policy("camera").name == "camera", "the built-in one keeps its name"


def test_a_path_with_an_equals_sign_is_a_path() -> None:
    policies, groups = load_policies(["lr=0.1", "a=b,c"])
    assert [policy.name for policy in policies] == ["lr=0.1", "a=b,c"] and groups == {}
    assert [stops_of(policy) for policy in policies] == [3.0, 4.0]
    members, groups = load_policies(["ours=lr=0.1,run-1"])
    assert [stops_of(policy) for policy in members] == [3.0, 1.0] and groups == {"ours": ("ours/1", "ours/2")}


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("=run-1,run-2", "NAME must be"),
        (" =run-1", "NAME must be"),
        ("runs/lr=0.2", "NAME must be a name without slashes"),
        ("ours=", "a P is empty"),
        ("ours=run-1,", "a P is empty"),
        ("ours=run-1,,run-2", "a P is empty"),
        ("ours=run-1,run-1", "given twice"),
        ("ours=run-1,run-3", "policy 'run-3' does not exist"),
    ],
)
def test_malformed_groups(spec: str, message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        load_policies([spec])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "specs", [["run-1", "run-1/best.json", "best=run-2"], ["a=run-1", "a=run-2"], ["run-1", "run-1=run-2"]]
)
def test_names_are_distinct(specs: list[str]) -> None:
    with pytest.raises(UsageError, match="the same name"):
        load_policies(specs)


def test_splitting_needs_no_files() -> None:
    assert split_group("x=a,b") == ("x", ("a", "b"))
    assert split_group("auto-exposure") == ("auto-exposure", ())
    assert split_group("x=" + "y" * 5000) == ("x", ("y" * 5000,)), "no path can be that long"


def test_heuristics_and_fixed_pipelines_are_static() -> None:
    class Own:
        name = "own"

        def plan(self, image: object) -> list[Pipeline]:
            return []

    assert all(load_policy(name).is_static for name in ("none", "auto-exposure", "camera", "night", "run-1"))
    assert not as_policy(Own()).is_static


OWN = """
from adaptiveisp import Pipeline, Stage

class Brighter:
    name = "brighter"
    def plan(self, image):
        return [Pipeline((Stage("exposure", {"ev": 1.5}),))] * len(image)

brighter = Brighter()

def load(device):
    assert device == "cpu"
    return Brighter()

def fails():
    raise ValueError("no weights")

number = 3
"""


def test_a_policy_of_ones_own_by_name_and_as_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry._REGISTERED, "_values", {})
    (tmp_path / "own_policies.py").write_text(OWN)
    image = torch.full((2, 3, 8, 8), 0.1)
    for text in ("own_policies:brighter", "own_policies:load"):
        policy = load_policy(text)
        assert policy.name == "brighter" and [p.stages[0].params["ev"] for p in policy.plan(image)] == [1.5, 1.5]
    for text, message in (("own_policies:number", "is no policy"), ("own_policies:fails", "ValueError: no weights")):
        with pytest.raises(UsageError, match=f"{text}: .*{message}"):
            load_policy(text)
    with pytest.raises(UsageError, match=r"policy 'bright' does not exist; .* or my_pkg\.my_file:name"):
        load_policy("bright")
    register_policy("bright", as_policy(policy))
    assert load_policy("bright").name == "bright"
    policies, _ = load_policies(["two=bright,own_policies:brighter"])
    assert [policy.name for policy in policies] == ["two/1", "two/2"]
    with pytest.raises(UsageError, match="'camera' is part of the package; choose another name"):
        register_policy("camera", policy)


def test_a_path_to_code_is_answered_with_the_name_of_its_module() -> None:
    with pytest.raises(UsageError, match=r"policy mine/dark\.py:Dark: write the module with dots .*, mine\.dark:Dark$"):
        load_policy("mine/dark.py:Dark")
