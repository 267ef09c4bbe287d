"""Learning and evaluating on a device that is not the CPU: on a GPU where there is one, and on a pretended one."""

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import torch

from adaptiveisp.data.training_images import TrainingImage
from adaptiveisp.training.methods.actor_critic.learner import ActorCritic
from adaptiveisp.training.methods.actor_critic.settings import CPU, PAPER
from adaptiveisp.training.methods.cma_es import CmaEs, CmaEsConfig
from adaptiveisp.training.methods.fixed import AFTER_AUTO_EXPOSURE, Fixed
from adaptiveisp.training.methods.learner import Learner, Metrics
from adaptiveisp.training.methods.random_search import RandomSearch, RandomSearchConfig
from adaptiveisp.training.methods.sequence.learner import SequenceLearner
from adaptiveisp.training.methods.sequence.settings import ADAPTIVE
from adaptiveisp.training.pseudo_labels import Teacher
from adaptiveisp.types import Targets
from tests.detectors.test_detector_contract import ADAPTERS, darknet
from tests.support.photos import labelled_photos
from tests.support.pretend_device import WrongDeviceError, marked, pretend_cuda
from tests.support.training_runs import RED, adaptiveisp, train_arguments
from tests.training.methods.test_actor_critic import GreyStream


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a real CUDA device; nothing is pretended")
def test_the_pretended_device_refuses_what_a_gpu_refuses() -> None:
    with pretend_cuda():
        here, there = torch.ones(3), torch.ones(3, device="cuda")
        assert there.device.type == "cuda" and here.device.type == "cpu"
        assert (there * 2).device.type == "cuda" and there.new_zeros(2).device.type == "cuda"
        assert here.to("cuda").device.type == "cuda" and there.cpu().device.type == "cpu"
        assert [x.device.type for x in there] == ["cuda"] * 3
        for wrong in (
            lambda: here + there,
            lambda: torch.cat([here, there]),
            lambda: there.numpy(),
            lambda: here[torch.tensor([0], device="cuda")],
            lambda: torch.rand(3, device="cuda", generator=torch.Generator()),
            lambda: torch.nn.functional.linear(there, torch.ones(2, 3)),
        ):
            with pytest.raises(WrongDeviceError):
                wrong()
        assert there[torch.tensor([0, 1])].device.type == "cuda"
        network = torch.nn.Linear(3, 1).to("cuda")
        assert all(marked(p) for p in network.parameters())
        (gradient,) = torch.autograd.grad(network(there).sum(), [network.weight])
        assert gradient.device.type == "cuda"


class Boxes:
    """Coloured squares with one object each, different for each number."""

    def __getitem__(self, number: int) -> TrainingImage:
        targets = Targets(torch.tensor([[8.0, 8.0, 40.0, 40.0]]), torch.tensor([number % 2]))
        return TrainingImage(number, GreyStream()[number].image, targets, 0.1)


METHODS: dict[str, tuple[Callable[..., Learner], Any]] = {
    "sequence edits": (SequenceLearner, replace(ADAPTIVE, size=64, batch=4, imitation_warmup=0.5, dropout=0.1)),
    "sequence samples": (
        SequenceLearner,
        replace(ADAPTIVE, size=64, batch=4, candidates="samples", imitation_warmup=0.0),
    ),
    "sequence explores": (
        SequenceLearner,
        replace(ADAPTIVE, size=64, batch=4, candidates="samples", imitation_warmup=0.0, exploration=0.1, group_size=4),
    ),
    "actor-critic": (ActorCritic, replace(CPU, size=64, replay_size=8, batch=4, precision="float32")),
    "actor-critic edits": (
        ActorCritic,
        replace(
            CPU,
            size=64,
            replay_size=8,
            batch=4,
            group_size=2,
            candidates="edits",
            imitation_warmup=0.0,
            precision="float32",
        ),
    ),
    "actor-critic steps": (ActorCritic, replace(PAPER, size=64, replay_size=8, batch=4, precision="float32")),
    "fixed": (Fixed, replace(AFTER_AUTO_EXPOSURE, size=64, batch=4)),
    "cma_es": (CmaEs, CmaEsConfig(modules=("exposure", "ccm", "sharpen"), size=64, batch=2)),
    "random_search": (RandomSearch, RandomSearchConfig(size=64, candidates=4, batch=2, duel=4)),
}


def learned(name: str, device: str, folder: Path) -> tuple[list[Metrics], Learner]:
    """Some iterations, the middle one from a checkpoint, and what came of each."""
    make, config = METHODS[name]
    (folder / device).mkdir()
    detector: Any = darknet(folder / device)
    detector.to(device)
    torch.manual_seed(0)
    subject = make(config, Boxes(), detector, 40, 0, device)
    found = [subject.iterate()[0] for _ in range(2)]
    torch.save(subject.state_dict(), folder / "latest.pt")
    subject = make(config, Boxes(), detector, 40, 0, device)
    subject.load_state_dict(torch.load(folder / "latest.pt", map_location="cpu", weights_only=True))
    return [*found, *(subject.iterate()[0] for _ in range(2))], subject


LENGTHY = (
    *("actor-critic", "actor-critic steps", "actor-critic edits", "cma_es", "random_search"),
    *("sequence samples", "sequence explores", "sequence edits"),
)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.long) if name in LENGTHY else name for name in METHODS]
)
def test_a_method_learns_the_same_on_another_device(name: str, tmp_path: Path) -> None:
    """Every tensor is where it belongs, and the numbers are those of the CPU but for the order of sums."""
    expected, ours = learned(name, "cpu", tmp_path)
    with pretend_cuda():
        found, theirs = learned(name, "cuda", tmp_path)
        theirs.save_policy(tmp_path, "there", {})
        plans = theirs.policy().plan(torch.stack([Boxes()[99].image]).to("cuda"))
    exact = 1 if name == "cma_es" else len(expected)  # pipelines of equal loss may change ranks by a rounding
    if torch.cuda.is_available():
        # A GPU orders its sums otherwise, which the optimisers' first steps enlarge, and draws its own dropout.
        exact = min(exact, 1 if name.startswith("actor-critic") else 3)
    for number, (before, after) in enumerate(zip(expected, found, strict=True)):
        assert after["passes"] == before["passes"]
        within = 1e-3 if number < exact else 2e-2
        assert after["detector_loss"] == pytest.approx(before["detector_loss"], rel=within)
    (plan,) = ours.policy().plan(torch.stack([Boxes()[99].image]))
    assert [stage.module for stage in plans[0].stages] == [stage.module for stage in plan.stages]
    assert len(list(tmp_path.glob("there.*"))) == 1


# A camera's model takes bytes; elsewhere its converted graph does not round to them, so that gradients pass.
@pytest.mark.parametrize(
    "name", sorted(set(ADAPTERS) - {"onnx, one image", "onnx, of a camera", "own callable", "registered"})
)
def test_a_detector_finds_the_same_on_another_device(name: str, tmp_path: Path) -> None:
    detector: Any = ADAPTERS[name](tmp_path)
    generator = torch.Generator().manual_seed(0)
    image = torch.rand(2, 3, 64, 64, generator=generator)
    targets = [Targets(torch.tensor([[8.0, 8.0, 40.0, 40.0]]), torch.tensor([0]))] * 2
    loss, found = detector.loss(image, targets), detector.detect(image)
    with pretend_cuda():
        detector.to("cuda")
        leaf = image.to("cuda").requires_grad_()
        losses = detector.loss(leaf, targets)
        (gradient,) = torch.autograd.grad(losses.sum(), leaf)
        assert losses.device.type == gradient.device.type == "cuda"
        detections = detector.detect(leaf.detach())
        assert all(one.boxes.device.type == "cuda" for one in detections)
        detections = [replace(d, boxes=d.boxes.cpu(), scores=d.scores.cpu()) for d in detections]
    torch.testing.assert_close(losses.detach().cpu(), loss, rtol=1e-4, atol=1e-6)
    for ours, theirs in zip(found, detections, strict=True):
        torch.testing.assert_close(theirs.boxes, ours.boxes, rtol=1e-4, atol=1e-3)


def test_a_teacher_looks_on_another_device(tmp_path: Path) -> None:
    photo = (255 * torch.rand(3, 48, 64, generator=torch.Generator().manual_seed(0))).byte()
    detector: Any = darknet(tmp_path)
    here = Teacher(detector, 0.2, size=96)
    here.label_photo("photo", photo)
    here.label_raw("raw", photo / 255, (2.0, 1.0, 1.5))
    with pretend_cuda():
        there = Teacher(detector.to("cuda"), 0.2, "cuda", 96)
        there.label_photo("photo", photo)
        there.label_raw("raw", photo / 255, (2.0, 1.0, 1.5))
    assert there.passes == here.passes > 2
    for title in ("photo", "raw"):
        assert len(there.answers[title]) == len(here.answers[title]) > 0


@contextmanager
def found_by_the_command_line() -> Iterator[None]:
    """The pretended device is what `auto` finds."""
    with pretend_cuda(), ExitStack() as stack:
        for command in ("run", "evaluate", "synth", "train"):
            stack.enter_context(patch(f"adaptiveisp.cli.{command}.set_up_torch", return_value="cuda"))
        yield


@pytest.mark.usefixtures("quiet_place", "without_figures")
@pytest.mark.long
def test_a_run_on_another_device(tmp_path: Path) -> None:
    """From photos to a report: training with dev and a teacher, resumption, evaluation, `run`, and use on the CPU."""
    labelled_photos(tmp_path)
    synth = ("synth", "--data", "labels.json", "--images", "images", "--light", "dark", "--out", "raws", "-q")
    assert adaptiveisp(*synth) == 0
    photos = ("--data", "labels.json", "--images", "images", "--light", "mixed", "--size", "64")
    data = (*photos, "--limit", 1, "--steps", 1)
    how = ("--method", "sequence", "--dev", "labels.json", "--dev-every", 3, "--labels", "teacher")
    with found_by_the_command_line():
        assert adaptiveisp(*train_arguments("run", 50, ()), *how, "--set", "precision=float32") == 0
        assert adaptiveisp("train", "--resume", "run", "--detector", RED, "-q") == 0
        policies = ("--policy", "run", "auto-exposure", "camera", "coco-adaptive", "greedy-oracle")
        assert adaptiveisp("eval", *data, *policies, "--detector", RED, "--out", "report", "-q") == 0
        run = ("run", "raws/dark", "--policy", "run", "--detector", RED, "--out", "out", "-q")
        assert adaptiveisp(*run, "--workers", 0) == 0  # what is pretended holds for one thread
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["device"] == "cuda"
    assert adaptiveisp("eval", *data, "--policy", "run", "--detector", RED, "--out", "here", "-q") == 0
    for there, here in zip(planned(tmp_path / "report"), planned(tmp_path / "here"), strict=True):
        assert there["modules"] == here["modules"]
        for values, same in zip(there["params"], here["params"], strict=True):
            assert values == pytest.approx(same, abs=1e-3)
        assert there["loss"] == pytest.approx(here["loss"], rel=1e-3)


def planned(report: Path) -> list[dict[str, Any]]:
    """The pipelines of the policy "run"."""
    lines = (json.loads(line) for line in (report / "pipelines.jsonl").read_text().splitlines())
    return [line for line in lines if line["policy"] == "run"]
