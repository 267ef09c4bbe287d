"""What no file may do: run code, start a download, write or remove outside its folder, or work without end.

Each line of docs/security.md is held by a test here, or by one that it names.
"""

import json
import os
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import save_file

from adaptiveisp.errors import PipelineError, UsageError, WeightsError
from adaptiveisp.isp.pipeline import MOST_STAGES, Pipeline
from adaptiveisp.isp.registry import PAPER
from adaptiveisp.policies.checkpoint import FORMAT, SEQUENCE, PolicyHeader, load_sequence_file, read_header, save_policy
from adaptiveisp.policies.environment import actions_of
from adaptiveisp.policies.sequence.networks import SequenceNetwork
from tests.support.photos import labelled_photos
from tests.support.training_runs import RED, adaptiveisp, train_arguments

pytestmark = pytest.mark.usefixtures("quiet_place")


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with photos and a run of the method `fixed`, named after it, in mid-run."""
    folder = tmp_path_factory.mktemp("stopped")
    labelled_photos(folder)
    with pytest.MonkeyPatch.context() as here:
        here.chdir(folder)
        stop_in_mid_run("fixed")
    return folder


def stop_in_mid_run(learner: str) -> None:
    """Trains half of a run of that learner into a folder of its name."""
    assert adaptiveisp(*train_arguments(learner, 24, ()), *LEARNERS[learner]) == 0
    config = Path(learner, "config.yaml")
    config.write_text(config.read_text().replace("budget: 24", "budget: 48"))
    Path(learner, "summary.json").unlink()


LEARNERS = {
    "actor_critic": (
        "--set=replay_size=8",
        "--set=horizon=2",
        "--set=rollout=2",
        "--set=expert_modules=[gamma, exposure]",
    ),
    "sequence": (
        "--method",
        "sequence",
        "--set=horizon=2",
        "--set=batch=2",
        "--set=expert_modules=[]",
        "--set=imitation_warmup=0",
    ),
    "fixed": ("--method", "fixed", "--preset", "raw"),
    "cma_es": ("--method", "cma_es", "--set=population=4", "--set=batch=2"),
}


@pytest.fixture
def place(stopped: Path, tmp_path: Path) -> Path:
    """A copy of that folder, with a module that leaves a trace when it is imported."""
    shutil.copytree(stopped, tmp_path, dirs_exist_ok=True)
    (tmp_path / "evil.py").write_text("open('PWNED', 'w')\n")
    return tmp_path


# code


def test_a_recipe_names_no_code_unless_the_command_line_does(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (place / "recipe.yaml").write_text("train: {detector: 'evil:load', budget: 8}\n")
    command = ("train", "--config", "recipe.yaml", "--data", "labels.json", "--images", "images", "--light", "mixed")
    assert adaptiveisp(*command, "--out", "run") == 2
    error = capsys.readouterr().err
    assert "evil:load: a file names code to run as the detector; if you trust it, give it yourself: --detector" in error
    assert not (place / "PWNED").exists() and not (place / "run").exists()


def test_a_run_folder_names_no_code_unless_the_command_line_does(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = place / "fixed" / "config.yaml"
    text = config.read_text()
    config.write_text(text.replace(RED, "evil:load"))
    assert adaptiveisp("train", "--resume", "fixed", "-q") == 2
    assert adaptiveisp("train", "--resume", "fixed", "--detector", RED, "-q") == 2
    error = capsys.readouterr().err
    assert "names code that no file may start: detector evil:load" in error
    assert "--resume continues with the detector of the run, evil:load" in error
    assert not (place / "PWNED").exists()
    config.write_text(text)
    assert adaptiveisp("train", "--resume", "fixed", "-q") == 2
    assert adaptiveisp("train", "--resume", "fixed", "--detector", RED, "-q", "--threads", 1) == 0


def test_a_file_starts_no_download(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[dict[str, Any]] = []

    def snapshot_download(name: str, **options: Any) -> str:
        asked.append(options)
        raise FileNotFoundError(name)

    hub = pytest.importorskip("huggingface_hub")
    monkeypatch.setattr(hub, "snapshot_download", snapshot_download)
    (place / "recipe.yaml").write_text("train: {detector: some/model, budget: 8}\n")
    command = ("train", "--config", "recipe.yaml", "--data", "labels.json", "--images", "images", "--light", "mixed")
    assert adaptiveisp(*command, "--out", "run") == 1
    assert "give it yourself: --detector some/model" in capsys.readouterr().err
    assert adaptiveisp(*command, "--out", "run", "--detector", "some/model") == 1
    assert [options.get("local_files_only", False) for options in asked] == [True, False]


def test_a_checkpoint_with_code_is_not_run(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    class Evil:
        def __reduce__(self) -> tuple[Any, ...]:
            return (open, ("PWNED", "w"))

    torch.save({"agent_model": Evil(), "value_model": {}}, place / "evil.pth")
    assert adaptiveisp("import", "evil.pth", "--out", "policy.safetensors") == 1
    torch.save({"learner": Evil()}, place / "fixed" / "latest.pt")
    assert adaptiveisp("train", "--resume", "fixed", "--detector", RED, "-q") == 1
    assert "Traceback" not in capsys.readouterr().err and not (place / "PWNED").exists()


# writing and removing


def test_a_file_names_no_folder_that_is_written_to(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A cache is a folder where files are written and removed."""
    outside = place / "outside"
    (place / "recipe.yaml").write_text(f"train: {{cache: {outside}, budget: 8, method: fixed}}\n")
    assert adaptiveisp("train", "--config", "recipe.yaml", *train_arguments("run", 8, ())[1:]) == 0
    assert "cache: is not taken from a file; give --cache DIR" in capsys.readouterr().err
    config = place / "fixed" / "config.yaml"
    config.write_text(config.read_text().replace("cache: ''", f"cache: {outside}"))
    assert adaptiveisp("train", "--resume", "fixed", "--detector", RED, "-q", "--threads", 1) == 0
    assert "give --cache to use it again" in capsys.readouterr().err
    assert not outside.exists()


def test_a_run_writes_through_no_link(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    precious = place / "precious.jsonl"
    for name in ("metrics.jsonl", "timing.jsonl", "tensorboard"):
        shutil.copytree(place / "fixed", place / "copy", dirs_exist_ok=True)
        target = place / "copy" / name
        shutil.rmtree(target) if target.is_dir() else target.unlink(missing_ok=True)
        precious.write_text("1\n2\n3\n4\n5\n6\n7\n8\n9\n")
        target.symlink_to(precious)
        assert adaptiveisp("train", "--resume", "copy", "--detector", RED, "-q") == 1
        assert f"{name}: is a link, through which the run would write" in capsys.readouterr().err
        assert precious.read_text().count("\n") == 9
        shutil.rmtree(place / "copy")


def test_a_folder_that_is_no_run_is_not_emptied(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Somebody's results beside a config.yaml, without a checkpoint and without our marker."""
    (place / "mine").mkdir()
    shutil.copy(place / "fixed" / "config.yaml", place / "mine")
    (place / "mine" / "summary.json").write_text("keep me")
    assert adaptiveisp("train", "--resume", "mine", "--detector", RED, "-q") == 1
    assert "no latest.pt" in capsys.readouterr().err
    assert sorted(path.name for path in (place / "mine").iterdir()) == ["config.yaml", "summary.json"]


# work without end, and types


HEADER = {
    "format": FORMAT, "format_version": 1, "kind": SEQUENCE, "module_set": "paper",
    "modules": [module.name for module in PAPER], "horizon": 5,
}  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"horizon": 1_000_000_000}, "horizon = 1000000000 is too large; give at most 64"),
        ({"horizon": 0}, "horizon must be from 1 to 64"),
        ({"horizon": "x"}, "horizon = 'x' does not fit; give a whole number"),
        ({"horizon": True}, "horizon = True does not fit"),
        ({"module_set": {}}, "module_set = {} does not fit; give text"),
        ({"module_set": "\x1b[31m"}, r"module_set '\x1b[31m' is not known to this version"),
        ({"modules": []}, "modules must name from 1 to"),
        ({"modules": "gamma"}, "modules = 'gamma' does not fit; give a list"),
        ({"modules": [["gamma"]]}, "does not fit; give a list"),
        ({"modules": ["gamma", "gamma"]}, "modules must not name a module twice"),
        ({"modules": ["blur"]}, "module 'blur' is unknown in the set 'paper'"),
        ({"kind": "oracle"}, "kind 'oracle' is not known to this version"),
        ({"view": "x"}, "view = 'x' does not fit; give linear or log"),
        ({"start": 1}, "start = 1 does not fit"),
        ({"once": "yes"}, "once = 'yes' does not fit; give true or false"),
        ({"surprise": 1}, "setting 'surprise' does not exist"),
        ({"format_version": 2}, "is no policy of version 1"),
        ({"format_version": True}, "is no policy of version 1"),
        ({"format": "other"}, "is no policy of version 1"),
        ({"origin": "x" * 100_000}, ""),
    ],
)
def test_the_header_of_a_policy_is_checked(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    path = tmp_path / "policy.safetensors"
    save_file({"x": torch.zeros(1)}, path, metadata={FORMAT: json.dumps(HEADER | changes)})
    with pytest.raises(WeightsError) as caught:
        load_sequence_file(path)
    assert message in str(caught.value) and str(path) in str(caught.value) and len(str(caught.value)) <= 1000


@pytest.mark.parametrize("text", ["[" * 100_000, "no json", "[]", "null", '{"horizon": NaN}', '{"modules": 3}'])
def test_a_header_that_is_no_mapping_is_refused(text: str, tmp_path: Path) -> None:
    save_file({"x": torch.zeros(1)}, tmp_path / "p.safetensors", metadata={FORMAT: text})
    with pytest.raises(WeightsError, match=r"p\.safetensors"):
        read_header(tmp_path / "p.safetensors")


def test_weights_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    modules = actions_of("paper", stop=True)
    network = SequenceNetwork(modules, "image", 3)
    header = PolicyHeader(SEQUENCE, "paper", tuple(module.name for module in modules), horizon=3)
    save_policy(tmp_path / "p.safetensors", header, {"sequence": network})
    load_sequence_file(tmp_path / "p.safetensors")
    with torch.no_grad():
        next(network.parameters()).view(-1)[0] = torch.nan
    save_policy(tmp_path / "p.safetensors", header, {"sequence": network})
    with pytest.raises(WeightsError, match="holds weights that are not finite"):
        load_sequence_file(tmp_path / "p.safetensors")


def test_a_pipeline_has_few_stages() -> None:
    stage = {"module": "exposure", "params": {"ev": 0.0}}
    Pipeline.from_json({"version": 1, "stages": [stage] * MOST_STAGES})
    with pytest.raises(PipelineError, match="has 65 stages, more than 64"):
        Pipeline.from_json({"version": 1, "stages": [stage] * (MOST_STAGES + 1)})


@pytest.mark.parametrize("setting", ["size", "batch", "horizon", "replay_size"])
def test_settings_that_no_machine_could_serve_are_refused(setting: str, place: Path) -> None:
    from adaptiveisp.training.config import make_settings

    with pytest.raises(UsageError, match=f"{setting} = 1000000000 is too large; give at most"):
        make_settings("actor_critic", "", {setting: 10**9}, "recipe.yaml")


def test_a_bomb_of_aliases_is_refused_at_once(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    aliases = "\n".join(f"a{i}: &a{i} [{'x,x' if i == 0 else f'*a{i - 1},*a{i - 1}'}]" for i in range(30))
    (place / "bomb.raw").write_bytes(bytes(128 * 96 * 2))
    (place / "bomb.raw.yaml").write_text(f"{aliases}\nraw-bits: 16\nraw-size: *a29\n")
    (place / "bomb.yaml").write_text(f"{aliases}\ntrain:\n  seed: *a29\n")
    began = time.monotonic()
    assert adaptiveisp("run", "bomb.raw", "--out", "out", "--detector", RED) == 1
    assert adaptiveisp("train", "--config", "bomb.yaml", "--out", "run") == 1
    assert adaptiveisp("eval", "--data", "bomb.yaml", "--policy", "none", "--detector", RED, "--out", "out") == 1
    assert time.monotonic() - began < 20
    error = capsys.readouterr().err
    assert error.count("aliases (*name) stand for more than 1,000,000 values") >= 3 and len(error) < 3000


CHANGES: list[tuple[str, Any]] = [
    ("learner", None), ("learner", []), ("learner", {}), ("learner.counters", "x"), ("learner.counters", [1]),
    ("learner.counters", [[1], 2, 3, 4, 5]), ("learner.counters", [1 << 70, 1, 1, 1, 1]),
    ("learner.generator", torch.zeros(3)),
    ("learner.pool", 3), ("learner.pool", [{"number": "x"}]), ("learner.actor", {}), ("learner.network", {"a": 1}),
    ("learner.optimiser", {"state": {}, "param_groups": []}),
    ("learner.optimiser.state", {0: {"exp_avg": torch.zeros(7, 7)}}), ("learner.actor_optimiser.state", {99: {}}),
    ("learner.actor_optimiser.param_groups", "x"), ("learner.rows", [1, 2]),
    ("learner.distribution", {"mean": 3}), ("best", "x"), ("best_ap50", [1]), ("lines", {"metrics.jsonl": "3"}),
    ("best_iteration", 1.5), ("start", {"start": "x"}), ("start", [1]),
    ("lines", {"metrics.jsonl": -1}), ("lines", 3), ("skipped", {1: 2}), ("teacher", {"passes": 1}), ("surprise", 1),
]  # fmt: skip


@pytest.mark.parametrize(
    "learner",
    [pytest.param(name, marks=pytest.mark.long) if name != "fixed" else name for name in LEARNERS],
)
def test_a_checkpoint_of_other_types_is_refused_in_one_line(
    learner: str, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if learner != "fixed":
        stop_in_mid_run(learner)
    path = place / learner / "latest.pt"
    whole = torch.load(path, weights_only=True)
    log = (place / learner / "metrics.jsonl").read_bytes()
    tried = 0
    for name, value in CHANGES:
        content = torch.load(path, weights_only=True) if tried == 0 else _copied(whole)
        inner = content
        *parents, last = name.split(".")
        try:
            for parent in parents:
                inner = inner[parent]
        except KeyError:  # of another method
            continue
        if name != "surprise" and last not in inner:
            continue
        inner[last] = value
        torch.save(content, path)
        tried += 1
        assert adaptiveisp("train", "--resume", learner, "--detector", RED, "-q", "--threads", 1) == 1, (name, value)
        error = capsys.readouterr().err
        assert "latest.pt" in error and error.count("\n") == 1 and "Traceback" not in error, (name, value, error)
        torch.save(whole, path)
    assert tried >= 10
    assert (place / learner / "metrics.jsonl").read_bytes() == log
    assert adaptiveisp("train", "--resume", learner, "--detector", RED, "-q", "--threads", 1) == 0


def _copied(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _copied(inner) for key, inner in value.items()}
    return [_copied(inner) for inner in value] if isinstance(value, list) else value


@pytest.mark.parametrize(
    ("part", "text"),
    [
        ("train", "[]"), ("train", "{3: 4}"), ("train", "x"), ("train", "{budget: x}"), ("train", "{limit: -1}"),
        ("train", "{data: {}}"), ("train", "{method: [x]}"), ("settings", "{batch: null}"),
        ("settings", "{size: 1.5}"), ("settings", "{modules: {a: b}}"), ("provenance", "[3]"), ("provenance", "text"),
    ],
)  # fmt: skip
def test_a_config_of_other_types_is_refused_in_one_line(
    part: str, text: str, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = place / "fixed" / "config.yaml"
    content = yaml.safe_load(config.read_text())
    value = yaml.safe_load(text)
    content[part] = {**content[part], **value} if isinstance(value, dict) else value
    config.write_text(yaml.safe_dump(content))
    assert adaptiveisp("train", "--resume", "fixed", "--detector", RED, "-q") == 1
    error = capsys.readouterr().err
    assert "config.yaml" in error and error.count("\n") == 1 and "Traceback" not in error, error


@pytest.mark.parametrize("name", ["x.pt", "x.onnx", "x.weights", "x.safetensors", "x.json", "x.pth", "x.yaml", "x.dng"])
def test_a_pipe_is_not_waited_for(name: str, place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A named pipe that nobody writes to would be read without end."""
    os.mkfifo(place / name)
    commands = {
        ".json": ("run", "images", "--pipeline", name, "--out", "out", "--detector", RED),
        ".yaml": ("train", "--config", name, "--out", "out"),
        ".pth": ("import", name, "--out", "p.safetensors"),
        ".dng": ("run", name, "--out", "out", "--detector", RED),
        ".safetensors": ("run", "images", "--policy", name, "--out", "out", "--detector", RED),
    }
    detector = ("run", "images", "--detector", name, "--policy", "none", "--out", "out")
    assert adaptiveisp(*commands.get(Path(name).suffix, detector)) in (1, 2)
    error = capsys.readouterr().err
    assert name in error and "Traceback" not in error


def test_a_damaged_log_of_times_does_not_lose_the_run(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = place / "fixed" / "timing.jsonl"
    lines = path.read_text().splitlines()
    path.write_text("\n".join(["no json", '{"iteration": 1, "x": "y"}', *lines[2:]]) + "\n")
    assert adaptiveisp("train", "--resume", "fixed", "--detector", RED, "-q", "--threads", 1) == 0
    assert "damaged lines, which the seconds in the summary leave out" in capsys.readouterr().err
    assert json.loads((place / "fixed" / "summary.json").read_text())["learning_seconds"] > 0


def test_a_resume_under_other_kernels_says_so(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """They agree to rounding only, so that the run is not the one that it would have been."""
    config = place / "fixed" / "config.yaml"
    content = yaml.safe_load(config.read_text())
    assert content["provenance"]["kernels"]
    content["provenance"]["kernels"] = "of another machine"
    config.write_text(yaml.safe_dump(content))
    assert adaptiveisp("train", "--resume", "fixed", "--detector", RED, "-q", "--threads", 1) == 0
    assert "began with kernels of another machine, continues with" in capsys.readouterr().err


def test_a_resume_with_other_data_says_so(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    resume = ("train", "--resume", "fixed", "--detector", RED, "-q", "--threads", 1)
    config = place / "fixed" / "config.yaml"
    content = yaml.safe_load(config.read_text())
    labels = Path(content["train"]["data"])
    content["train"]["data"] = str(place / "labels.json")  # the copy has the same content
    config.write_text(yaml.safe_dump(content))
    assert labels.read_bytes() == (place / "labels.json").read_bytes()
    changed = json.loads((place / "labels.json").read_text())
    changed["annotations"][0]["bbox"][0] += 1
    (place / "labels.json").write_text(json.dumps(changed))
    assert adaptiveisp(*resume) == 0
    assert "data or dev have changed since the run began" in capsys.readouterr().err
    (place / "labels.json").write_bytes(labels.read_bytes())
    config.write_text(config.read_text().replace("budget: 48", "budget: 60"))
    assert adaptiveisp(*resume) == 0
    assert "changed since" not in capsys.readouterr().err


def test_a_log_that_has_two_names_is_not_written_through(place: Path) -> None:
    """A backup by hard links keeps what it had."""
    log = place / "fixed" / "metrics.jsonl"
    os.link(log, place / "backup.jsonl")
    before = log.read_bytes()
    assert adaptiveisp("train", "--resume", "fixed", "--detector", RED, "-q", "--threads", 1) == 0
    assert (place / "backup.jsonl").read_bytes() == before and len(log.read_bytes()) > len(before)


@pytest.mark.parametrize("settings", ["{size: 8192}", "{size: 64, batch: 100000}", "{size: 2080}"])
def test_a_recipe_cannot_ask_for_all_memory(settings: str, place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = (
        f"train: {{method: fixed, preset: raw, data: labels.json, images: images, light: dark}}\nsettings: {settings}\n"
    )
    (place / "recipe.yaml").write_text(recipe)
    assert adaptiveisp("train", "--config", "recipe.yaml", "--detector", RED, "--out", "run") == 2
    error = capsys.readouterr().err
    assert ("MP, more than the limit of 34" in error) or ("is too large; give at most" in error)


def test_a_picture_of_more_pixels_than_any_camera_makes_is_refused_before_it_is_read(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    np.lib.format.open_memmap(place / "large.npy", "w+", np.uint16, (20_000, 20_000)).flush()
    flags = ("--raw-pattern", "RGGB", "--raw-bits", 12, "--out", "out", "--detector", RED)
    assert adaptiveisp("run", "large.npy", *flags) == 1
    assert "large.npy: has 400 MP; the most are 250 MP" in capsys.readouterr().err
