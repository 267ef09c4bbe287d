"""Recorded work: when it is recorded, what is kept, and, on a GPU, that the numbers are those of doing it."""

import weakref
from collections.abc import Iterator
from typing import Any
from unittest.mock import patch

import pytest
import torch
from torch import Tensor

from adaptiveisp.evaluation.benchmark import some_calls, untrained_policy, untrained_sequence
from adaptiveisp.isp.execution import run_one
from adaptiveisp.isp.modules.denoise import denoise
from adaptiveisp.isp.registry import EXTENDED, HELPERS, IspModule
from adaptiveisp.kernels import cuda_graphs, loading
from adaptiveisp.kernels.cuda_graphs import KEPT, LARGEST, SWITCH, Recordings, turned_off

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")


class StandIn:
    """What a recording is on a machine without a GPU: it writes down what was recorded and what was replayed."""

    def __init__(self) -> None:
        self.recorded: list[Any] = []
        self.replayed: list[Any] = []

    def record(self, work: Any, given: tuple[Tensor, ...]) -> Any:
        self.recorded.append(given)
        inputs = tuple(tensor.clone() for tensor in given)
        outputs = work(*inputs)

        class Graph:
            def replay(graph) -> None:
                self.replayed.append(given)
                for output, new in zip(outputs, work(*inputs), strict=True):
                    output.copy_(new)

        return cuda_graphs._Recording(Graph(), inputs, outputs)


@pytest.fixture
def stand_in() -> Iterator[StandIn]:
    made = StandIn()
    with (
        patch.object(cuda_graphs, "_record", made.record),
        patch.object(cuda_graphs, "_worthwhile", lambda given: True),
    ):
        yield made


def double(x: Tensor) -> tuple[Tensor]:
    return (2 * x,)


def test_what_comes_up_again_is_recorded_and_then_replayed(stand_in: StandIn) -> None:
    subject = Recordings()
    outputs = [subject.run("double", double, torch.full((3,), float(n)))[0] for n in range(4)]
    assert [output.tolist() for output in outputs] == [[0.0] * 3, [2.0] * 3, [4.0] * 3, [6.0] * 3]
    assert len(stand_in.recorded) == 1 and len(stand_in.replayed) == 3


def test_each_name_shape_and_type_is_recorded_on_its_own(stand_in: StandIn) -> None:
    subject = Recordings()
    for _ in range(3):
        assert subject.run("double", double, torch.ones(3))[0].tolist() == [2.0] * 3
        assert subject.run("double", double, torch.ones(4))[0].tolist() == [2.0] * 4
        assert subject.run("double", double, torch.ones(3, dtype=torch.float64))[0].dtype == torch.float64
        assert subject.run("negative", lambda x: (-x,), torch.ones(3))[0].tolist() == [-1.0] * 3
    assert len(stand_in.recorded) == 4 and len(stand_in.replayed) == 8


def test_what_was_not_used_for_longest_goes(stand_in: StandIn) -> None:
    subject = Recordings()
    for size in range(1, KEPT + 2):
        for _ in range(2):
            subject.run("double", double, torch.ones(size))
        subject.run("double", double, torch.ones(1))  # stays in use
    before = len(stand_in.recorded)
    subject.run("double", double, torch.ones(1))
    assert len(stand_in.recorded) == before
    subject.run("double", double, torch.ones(2))  # was dropped: begins anew
    subject.run("double", double, torch.ones(2))
    assert len(stand_in.recorded) == before + 1


REFUSALS = [
    cuda_graphs.NotRecordableError("aten::item waits for the device"),
    torch.cuda.OutOfMemoryError("no room"),
    RuntimeError("operation not permitted when stream is capturing"),
]


@pytest.mark.parametrize("refusal", REFUSALS, ids=lambda error: type(error).__name__)
@pytest.mark.usefixtures("stand_in")
def test_what_cannot_be_recorded_is_done_and_not_tried_again(refusal: Exception) -> None:
    tries = []

    def record(work: Any, given: Any) -> Any:
        tries.append(given)
        raise refusal

    subject = Recordings()
    with patch.object(cuda_graphs, "_record", record):
        for _ in range(4):
            assert subject.run("double", double, torch.ones(3))[0].tolist() == [2.0] * 3
    assert len(tries) == 1


@pytest.mark.usefixtures("stand_in")
def test_a_recording_that_found_no_room_is_gone_before_the_work_is_done() -> None:
    tried: list[weakref.ref[Tensor]] = []
    left: list[bool] = []

    def record(work: Any, given: Any) -> Any:
        copy = given[0].clone()
        tried.append(weakref.ref(copy))
        raise torch.cuda.OutOfMemoryError("no room")

    def work(x: Tensor) -> tuple[Tensor]:
        left.append(any(reference() is not None for reference in tried))
        return (2 * x,)

    subject = Recordings()
    with patch.object(cuda_graphs, "_record", record):
        for _ in range(3):
            subject.run("work", work, torch.ones(3))
    assert len(tried) == 1 and left == [False] * 3


def test_the_cpu_records_nothing() -> None:
    subject, image = Recordings(), torch.rand(1, 3, 8, 8)
    for _ in range(3):
        (output,) = subject.run("same", lambda x: (x,), image)
        assert output is image
    assert not subject._known


@needs_gpu
def test_only_what_is_worth_it_is_recorded() -> None:
    image = torch.rand(1, 3, 8, 8, device="cuda")
    assert cuda_graphs._worthwhile((image,))
    with turned_off():
        assert not cuda_graphs._worthwhile((image,))
    assert not cuda_graphs._worthwhile((image, torch.ones(2)))
    assert not cuda_graphs._worthwhile((image.requires_grad_(),))
    with torch.no_grad():
        assert cuda_graphs._worthwhile((image,))
        with torch.autocast("cuda", torch.bfloat16):
            assert not cuda_graphs._worthwhile((image,))
    assert not cuda_graphs._worthwhile((torch.empty(LARGEST + 1, device="cuda"),))
    with torch.cuda.stream(torch.cuda.Stream()):  # type: ignore[no-untyped-call]
        assert not cuda_graphs._worthwhile((image.detach(),))


def test_the_switch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(SWITCH, "1")
    import os

    with turned_off():
        assert os.environ[SWITCH] == "0"
    assert os.environ[SWITCH] == "1"
    monkeypatch.delenv(SWITCH)
    with turned_off():
        assert os.environ[SWITCH] == "0"
    assert SWITCH not in os.environ


@needs_gpu
@pytest.mark.parametrize("module", (*EXTENDED, *HELPERS), ids=lambda module: module.name)
def test_a_recorded_module_gives_the_same_numbers(module: IspModule) -> None:
    generator = torch.Generator().manual_seed(0)
    (call,) = some_calls([module.name])
    for number in range(4):
        picture = torch.rand(3, 41, 50, generator=generator).to("cuda")
        params = [value * (1 - 0.01 * number) for value in call[1]]
        with torch.inference_mode(number % 2 == 0):
            found = run_one(picture, [(module, params)])
            with turned_off():
                assert torch.equal(found, run_one(picture, [(module, params)]))


@needs_gpu
def test_what_was_returned_stays() -> None:
    calls = some_calls(["exposure", "gamma"])
    pictures = [torch.rand(3, 16, 16, device="cuda") for _ in range(5)]
    found = [run_one(picture, calls) for picture in pictures]
    with turned_off():
        for picture, result in zip(pictures, found, strict=True):
            assert torch.equal(result, run_one(picture, calls))


WAITING: dict[str, Any] = {
    "item": lambda x: x * float(x.mean()),
    "truth": lambda x: x if x.mean() > 2 else -x,
    "list": lambda x: x * max(x.flatten().tolist()),
    "python numbers": lambda x: x * torch.tensor([1.0, 2.0, 3.0]).to(x.device)[:, None, None],
    "new tensor": lambda x: x * x.new_tensor([1.0, 2.0, 3.0])[:, None, None],
    "nonzero": lambda x: x.nonzero(),
    "mask": lambda x: x[x > 0.5],
    "masked select": lambda x: x.masked_select(x > 0.5),
    "unique": lambda x: x.unique(),
    "numpy": lambda x: torch.from_numpy(x.cpu().numpy()),
}
WATCHED = torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")


@pytest.mark.parametrize("name", WAITING)
def test_work_that_waits_for_the_device_is_told_from_what_does_not(name: str) -> None:
    image = torch.rand(1, 3, 4, 4, device=WATCHED)
    if WATCHED.type == "cpu" and name in ("list", "numpy"):
        pytest.skip("on the CPU nothing is waited for")
    with pytest.raises(cuda_graphs.NotRecordableError), cuda_graphs._Watched(WATCHED):
        WAITING[name](image)


def test_a_tensor_of_another_device_cannot_be_recorded() -> None:
    with pytest.raises(cuda_graphs.NotRecordableError), cuda_graphs._Watched(WATCHED):
        torch.ones(3, device=WATCHED) + torch.ones(3, device="meta").to(WATCHED)


@pytest.mark.parametrize("module", (*EXTENDED, *HELPERS), ids=lambda module: module.name)
def test_no_module_waits_for_the_device(module: IspModule) -> None:
    ((_, params),) = some_calls([module.name])
    row = torch.tensor([params], device=WATCHED).reshape(1, len(module.params))
    picture = torch.rand(1, 3, 41, 50, device=WATCHED)
    with loading.turned_off(), torch.no_grad(), cuda_graphs._Watched(WATCHED):
        assert module(picture, row).shape == picture.shape


@needs_gpu
@pytest.mark.parametrize("waits", [WAITING["item"], WAITING["python numbers"]], ids=["item", "python numbers"])
def test_a_module_that_waits_for_the_gpu_still_runs(waits: Any) -> None:
    def waits_for(image: Tensor, params: Tensor) -> Tensor:
        return waits(image)  # type: ignore[no-any-return]

    module = IspModule("waits", "W", (), waits_for, 1.0)
    for _ in range(4):
        picture = torch.rand(3, 16, 16, device="cuda")
        torch.testing.assert_close(run_one(picture, [(module, [])]), waits(picture[None])[0].clamp(0, 1))
    picture = torch.rand(3, 16, 16, device="cuda")  # and others can still be recorded
    for _ in range(3):
        torch.testing.assert_close(
            run_one(picture, some_calls(["gain"])), run_one(picture.cpu(), some_calls(["gain"])).cuda()
        )


@needs_gpu
def test_gradients_of_non_local_means_are_those_without_graphs() -> None:
    def gradients() -> list[Tensor]:
        generator, found = torch.Generator().manual_seed(1), []
        for _ in range(4):
            image = torch.rand(2, 3, 24, 30, generator=generator).to("cuda").requires_grad_()
            params = torch.full((2, 1), 0.1, device="cuda", requires_grad=True)
            loss = denoise(image, params).square().sum()
            found += torch.autograd.grad(loss, [image, params])
            found += torch.autograd.grad(denoise(image.detach(), params).square().sum(), [params])
        return found

    with turned_off():
        expected = gradients()
    for before, after in zip(expected, gradients(), strict=True):
        torch.testing.assert_close(after, before)


@needs_gpu
@pytest.mark.parametrize("kind", ["sequence", "step-wise"])
def test_a_policy_plans_on_a_gpu_what_it_plans_on_the_cpu(kind: str) -> None:
    here: Any = untrained_sequence() if kind == "sequence" else untrained_policy()
    there: Any = untrained_sequence() if kind == "sequence" else untrained_policy()
    torch.manual_seed(0)
    source, target = (p.network if kind == "sequence" else p.actor for p in (here, there))
    with torch.no_grad():
        for weight in source.parameters():
            weight.add_(0.02 * torch.randn_like(weight))
    target.load_state_dict(source.state_dict())
    target.to("cuda")
    forced = [2, 1, 0]
    for number in range(4):
        image = 0.2 * torch.rand(1, 3, 80, 96, generator=torch.Generator().manual_seed(number))
        plans, rendered = here.process(image, forced)
        theirs, other = there.process(image.to("cuda"), forced)
        torch.testing.assert_close(other.cpu(), rendered, atol=2e-3, rtol=0)
        for ours, stage in zip(plans[0].stages, theirs[0].stages, strict=True):
            assert stage.module == ours.module
            assert list(stage.params.values()) == pytest.approx(list(ours.params.values()), rel=2e-2, abs=2e-3)
