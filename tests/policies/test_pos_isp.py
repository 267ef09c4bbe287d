"""Released POS-ISP policies: the values of the authors' code, the import, and the modules of the set `pos-isp`."""

import colorsys
import math
import pickle
import re
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file

from adaptiveisp import AdaptiveISP, IspModule, Pipeline, Stage
from adaptiveisp.cli.parser import build_parser, main
from adaptiveisp.errors import PolicyError, UsageError, WeightsError
from adaptiveisp.isp.registry import POS_ISP, find_module
from adaptiveisp.kernels.registry import KernelCall
from adaptiveisp.policies.base import PREPROCESSINGS
from adaptiveisp.policies.checkpoint import import_released, read_header
from adaptiveisp.policies.pos_isp.checkpoint import import_pos_isp
from adaptiveisp.policies.pos_isp.policy import PosIspPolicy
from adaptiveisp.policies.registry import load_policy
from adaptiveisp.raw.dng import write_dng
from adaptiveisp.types import RawImage
from tests.inference.test_predictor import red_box_raw
from tests.support.fake_detector import RedDetector

POLICIES = ("kitti_", "lis-raw_all_", "lis-raw_dark_", "lod-", "lod-raw_all_")
SHAPES = {
    **{
        f"param_net.{name}.weight": shape
        for name, shape in {
            "enc1.0": (32, 3, 3, 3),
            "enc1.2": (64, 32, 3, 3),
            "enc1.4": (128, 64, 3, 3),
            "enc2.0": (128, 128, 3, 3),
            "enc3.0": (128, 128, 3, 3),
            "fc1": (256, 256),
            "fc2": (128, 256),
            "decoder.0": (256, 128),
            "decoder.2": (27, 256),
        }.items()
    },
    "action_agent.step2film.0.weight": (256, 16),
    "action_agent.decoder.weight": (11, 128),
}
SHAPES |= {name.replace("weight", "bias"): shape[:1] for name, shape in SHAPES.items()}
SHAPES |= {"action_agent.token_embed.weight": (12, 64), "action_agent.step_embed.weight": (11, 16)}
for way in ("", "_reverse"):
    SHAPES |= {f"action_agent.gru.weight_{side}_l0{way}": (192, 64) for side in ("ih", "hh")}
    SHAPES |= {f"action_agent.gru.bias_{side}_l0{way}": (192,) for side in ("ih", "hh")}

Content = dict[str, object]
Agent = dict[str, torch.Tensor]


def random_agent() -> Agent:
    generator = torch.Generator().manual_seed(0)
    scales = {name: 1 / math.sqrt(math.prod(shape[1:])) for name, shape in SHAPES.items()}
    return {name: scales[name] * torch.randn(shape, generator=generator) for name, shape in SHAPES.items()}


@pytest.fixture
def published(tmp_path: Path) -> Path:
    """A policy of the released layout with random weights."""
    torch.save({"iter": 12, "agent_model": random_agent()}, tmp_path / "random.pth")
    return tmp_path / "random.pth"


def imported(published: Path, *options: str) -> Path:
    out = published.with_suffix(".safetensors")
    assert main(["import", str(published), "--out", str(out), "--overwrite", *options]) == 0
    return out


# Values of the authors' code.


@pytest.fixture(scope="module")
def golden(shared: Path) -> dict[str, torch.Tensor]:
    path = shared / "golden" / "pos-isp" / "golden.safetensors"
    if not path.is_file():
        pytest.skip(f"no {path}; set ADAPTIVEISP_DATA to the folder of golden values")
    return dict(load_file(path))


@pytest.mark.parametrize("name", POLICIES)
def test_the_authors_values(name: str, golden: dict[str, torch.Tensor], shared: Path) -> None:
    key = f"{name}PosISP_iter_15000"
    header, network = import_pos_isp(shared / "golden" / "pos-isp" / f"{key}.pth")
    image = golden["input"]
    with torch.no_grad():
        torch.testing.assert_close(network(image), golden[f"{key}/unit_params"], rtol=0, atol=1e-5)
    order = network.order()
    assert order.modules == golden[f"{key}/order"].tolist()
    torch.testing.assert_close(torch.tensor(order.log_probs), golden[f"{key}/log_prob"], rtol=0, atol=1e-4)
    plans, made = PosIspPolicy(header, network).process(image)
    steps, params = golden[f"{key}/steps"], golden[f"{key}/params"]
    for i, plan in enumerate(plans):
        again = Pipeline.from_json(plan.to_json())
        for k, stage in enumerate(again.stages):
            values = torch.tensor(list(stage.params.values()))
            if stage.module == "ccm":  # theirs are after the division
                values = (values.reshape(3, 3) / (values.reshape(3, 3).sum(dim=1, keepdim=True) + 1e-8)).flatten()
            torch.testing.assert_close(values, params[i, k, : len(values)], rtol=1e-4, atol=1e-4)
            for run in (lambda one, x: list(one.steps(x))[-1], Pipeline.render):
                single = run(Pipeline((stage,), "pos-isp"), steps[i, k][None])[0]
                torch.testing.assert_close(single, steps[i, k + 1], rtol=0, atol=1e-5)
        for k, carried in enumerate(again.steps(image[i : i + 1])):
            compare_carried(carried[0], steps[i, k + 1], steps[i], [stage.module for stage in again.stages])
        compare_carried(made[i], golden[f"{key}/output"][i], steps[i], [stage.module for stage in again.stages])


def compare_carried(ours: torch.Tensor, theirs: torch.Tensor, steps: torch.Tensor, modules: list[str]) -> None:
    """1e-4; 1e-2 for pixels that are exactly grey where saturation runs, since rounding decides their hue."""
    before = steps[modules.index("saturation")]
    allowed = torch.where(before.amax(dim=0) == before.amin(dim=0), 1e-2, 1e-4)
    assert ((ours - theirs).abs() <= allowed).all()


# The import and the policy.


def order_by_hand(agent: Agent) -> list[int]:
    """The likeliest order, by NumPy and the equations of a gated recurrent unit."""
    numbers = {name.removeprefix("action_agent."): value.double().numpy() for name, value in agent.items()}

    def cell(way: str, x: np.ndarray, h: np.ndarray) -> np.ndarray:
        ours = numbers[f"gru.weight_ih_l0{way}"] @ x + numbers[f"gru.bias_ih_l0{way}"]
        carried = numbers[f"gru.weight_hh_l0{way}"] @ h + numbers[f"gru.bias_hh_l0{way}"]
        reset, update = (1 / (1 + np.exp(-(ours[s] + carried[s]))) for s in (slice(64), slice(64, 128)))
        new = np.tanh(ours[128:] + reset * carried[128:])
        return (1 - update) * new + update * h

    token, hidden, order = 11, [np.zeros(64), np.zeros(64)], []
    for step in range(11):
        x = numbers["token_embed.weight"][token]
        hidden = [cell(way, x, h) for way, h in zip(("", "_reverse"), hidden, strict=True)]
        film = np.tanh(numbers["step2film.0.weight"] @ numbers["step_embed.weight"][step] + numbers["step2film.0.bias"])
        features = np.concatenate(hidden) * (1 + film[:128]) + film[128:]
        logits = numbers["decoder.weight"] @ features + numbers["decoder.bias"]
        logits[order] = -np.inf
        token = int(logits.argmax())
        if token == 10:
            break
        order.append(token)
    return order


def units_by_hand(agent: Agent, image: torch.Tensor) -> torch.Tensor:
    weights = {name.removeprefix("param_net."): value for name, value in agent.items()}
    x = F.adaptive_avg_pool2d(image, 64)
    for name in ("enc1.0", "enc1.2", "enc1.4", "enc2.0", "enc3.0"):
        x = F.leaky_relu(F.conv2d(x, weights[f"{name}.weight"], weights[f"{name}.bias"], 2, 1), 0.2)
    assert x.shape[2:] == (2, 2)
    x = torch.cat([x.flatten(2).mean(dim=2), x.flatten(2).max(dim=2).values], dim=1)
    x = F.relu(x @ weights["fc1.weight"].T + weights["fc1.bias"])
    x = x @ weights["fc2.weight"].T + weights["fc2.bias"]
    x = F.leaky_relu(x @ weights["decoder.0.weight"].T + weights["decoder.0.bias"], 0.2)
    return (torch.tanh(x @ weights["decoder.2.weight"].T + weights["decoder.2.bias"]) + 1) / 2


def test_an_imported_policy_plans_by_the_files_weights(published: Path) -> None:
    agent = random_agent()
    agent["action_agent.decoder.bias"][10] = -1e-3  # near the end's logit, so that the masks decide
    torch.save({"iter": 12, "agent_model": agent}, published)
    path = imported(published)
    policy = load_policy(str(path))
    image = torch.rand(2, 3, 40, 70, generator=torch.Generator().manual_seed(1))
    plans = policy.plan(image)
    order = order_by_hand(agent)
    assert len(order) > 0 and [[POS_ISP[k].name for k in order]] * 2 == [[s.module for s in p.stages] for p in plans]
    bounds = {
        "exposure": [(-3.5, 3.5)],
        "gamma": [(1 / 3, 3)],
        "ccm": [(-2, 2)] * 9,
        "sharpen": [(1e-5, 10)],
        "denoise": [(1e-5, 1)],
        "tone": [(0.5, 2)] * 8,
        "contrast": [(-1, 1)],
        "saturation": [(0, 1)],
        "desaturation": [(0, 1)],
        "white_balance": [(1 / 1.1, 1.1)] * 3,
    }
    for plan, row in zip(plans, units_by_hand(agent, image).tolist(), strict=True):
        numbers = iter(row)
        expected = {k: [low + (high - low) * next(numbers) for low, high in pairs] for k, pairs in bounds.items()}
        for stage in plan.stages:
            assert list(stage.params.values()) == pytest.approx(expected[stage.module], rel=1e-4, abs=1e-5)
    assert policy.settable == tuple(bounds) and not policy.is_static
    (forced,) = policy.plan_with(image[:1], ["tone", "exposure"])
    named = {stage.module: stage for stage in plans[0].stages}
    assert [stage.module for stage in forced.stages] == ["tone", "exposure"]
    assert all(named.get(stage.module, stage) == stage for stage in forced.stages)


def test_the_header_says_where_the_policy_comes_from(published: Path) -> None:
    import hashlib

    header = read_header(imported(published))
    assert header.kind == header.module_set == "pos-isp" and header.start == "raw"
    digest = hashlib.sha256(published.read_bytes()).hexdigest()
    assert header.origin == f"POS-ISP, imported from random.pth, iteration 12, sha256 {digest}"


def longer(policy: PosIspPolicy) -> PosIspPolicy:
    """The policy with all ten modules: an early end in the random weights would test few of them."""
    policy.__dict__["order"] = (8, 5, 7, 1, 0, 4, 2, 9, 6, 3)
    return policy


def test_a_written_pipeline_renders_the_same_image(published: Path, tmp_path: Path) -> None:
    policy = load_policy(str(imported(published)))
    assert isinstance(policy, PosIspPolicy)
    image = torch.rand(1, 3, 32, 40)
    (plan,), made = longer(policy).process(image)
    assert len(plan.stages) == 10
    plan.save(tmp_path / "plan.json")
    again = load_policy(str(tmp_path / "plan.json"))
    assert torch.equal(again.process(image)[1], made) and again.plan(image) == [plan]
    copied = pickle.loads(pickle.dumps(policy))
    assert torch.equal(longer(copied).process(image)[1], made)
    (short,) = longer(policy.with_steps(3)).plan(image)
    assert short.stages == plan.stages[:3]


def test_run_writes_what_run_reads(published: Path, tmp_path: Path) -> None:
    codes = np.random.default_rng(0).integers(300, 3000, (48, 64), dtype=np.uint16)
    write_dng(RawImage(codes, "RGGB", (256.0,) * 4, 4095.0, (2.0, 1.0, 1.6)), tmp_path / "a.dng")
    common = ["--detector", "tests.support.fake_detector:load", "--size", "64", "-q"]
    first, second = tmp_path / "one", tmp_path / "two"
    path = imported(published)
    assert main(["run", str(tmp_path / "a.dng"), "--policy", str(path), "--out", str(first), *common]) == 0
    plan = first / "a.pipeline.json"
    assert Pipeline.load(plan).module_set == "pos-isp" and len(Pipeline.load(plan).stages) > 0
    assert main(["run", str(tmp_path / "a.dng"), "--pipeline", str(plan), "--out", str(second), *common]) == 0
    assert (first / "a.png").read_bytes() == (second / "a.png").read_bytes()


@pytest.mark.parametrize("kind", ["auto-gain", "auto-exposure"])
def test_preprocessing_runs_first_and_the_policy_sees_its_result(published: Path, kind: str) -> None:
    image = (
        torch.rand(1, 3, 48, 64, generator=torch.Generator().manual_seed(2))
        * torch.tensor([0.02, 0.01, 0.005])[:, None, None]
    )
    (bare,) = load_policy("auto-exposure").plan(image)
    balance, exposure, _ = bare.stages
    policy = load_policy(str(imported(published, "--preprocessing", kind)))
    assert policy.preprocessing == kind
    (plan,) = policy.plan(image)
    factor = 2 ** exposure.params["ev"]
    expected = {name: gain * factor for name, gain in balance.params.items()}
    assert plan.stages[0].module == "gain" and dict(plan.stages[0].params) == pytest.approx(expected)
    first = plan.stages[:2] if kind == "auto-exposure" else plan.stages[:1]
    assert [stage.module for stage in first] == ["gain", "srgb"][: len(first)]
    observed = Pipeline(first, "pos-isp").render(image)
    assert 0.1 < observed.mean() < 0.6
    plain = load_policy(str(imported(published)))
    assert plain.plan(observed)[0].stages == plan.stages[len(first) :]
    assert torch.equal(policy.process(image)[1], Pipeline(plan.stages, "pos-isp").render(image))


def test_the_command_lists_all_preprocessings() -> None:
    for kind in PREPROCESSINGS:
        assert build_parser().parse_args(["import", "x", "--out", "y", "--preprocessing", kind]).preprocessing == kind


def changed(**tensors: object) -> Content:
    agent = {**random_agent(), **{name.replace("__", "."): value for name, value in tensors.items()}}
    return {"iter": 1, "agent_model": {name: value for name, value in agent.items() if value is not None}}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"iter": 1}, "lacks 'agent_model'"),
        ([1, 2], "is no released AdaptiveISP checkpoint and no POS-ISP policy"),
        ({"iter": 1, "agent_model": [1]}, "agent_model holds no tensors"),
        ({"iter": 1, "agent_model": {}}, "lacks 'param_net.enc1.0.weight'"),
        ({**changed(), "iter": "last"}, "iter = 'last' is not"),
        (changed(param_net__fc1__bias=None), "lacks 'param_net.fc1.bias'"),
        (changed(extra=torch.zeros(1)), "unknown key 'extra'"),
        (changed(param_net__fc1__bias=3), "'param_net.fc1.bias' is not a tensor"),
        (changed(param_net__fc1__bias=torch.zeros(255)), r"fc1.bias is torch.float32 \(255,\), not .* \(256,\)"),
        (changed(param_net__fc1__bias=torch.zeros(256).half()), "fc1.bias is torch.float16"),
        (changed(param_net__fc1__bias=torch.full((256,), math.nan)), "not finite"),
    ],
    ids=lambda value: re.sub(r"\W+", "-", value) if isinstance(value, str) else "",
)
def test_other_files_are_refused(
    content: object, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.save(content, tmp_path / "bad.pth")
    assert main(["import", str(tmp_path / "bad.pth"), "--out", str(tmp_path / "x.safetensors")]) != 0
    error = capsys.readouterr().err.strip()
    assert re.search(message, error) and "\n" not in error and "bad.pth: " in error and "; " in error
    assert not (tmp_path / "x.safetensors").exists()


def test_each_reader_refuses_the_other_kind(published: Path, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="lacks 'value_model'"):
        import_released(published)
    from adaptiveisp.policies.pos_isp.policy import load_pos_isp
    from adaptiveisp.policies.registry import shipped_file
    from adaptiveisp.policies.sequence.policy import load_sequence

    with pytest.raises(WeightsError, match="of the kind sequence, not pos-isp"):
        load_pos_isp(shipped_file("coco-adaptive"))
    with pytest.raises(WeightsError, match="of the kind pos-isp, not sequence"):
        load_sequence(imported(published))


# The modules of the set `pos-isp`.


def apply(name: str, image: torch.Tensor, *params: float) -> torch.Tensor:
    return find_module(name, "pos-isp")(image, torch.tensor([params], dtype=torch.float32))


def pixel(*values: float) -> torch.Tensor:
    return torch.tensor(values).reshape(1, 3, 1, 1)


def test_nothing_clips_but_the_five_that_say_so() -> None:
    bright = pixel(0.4, 0.6, 0.9)
    assert apply("exposure", bright, 1.0).flatten().tolist() == pytest.approx([0.8, 1.2, 1.8])
    assert apply("gamma", pixel(0.0, 1.21, 0.25), 0.5).flatten().tolist() == pytest.approx([1e-3, 1.1, 0.5])
    assert apply("desaturation", pixel(2.0, 2.0, 1.0), 0.0).flatten().tolist() == [2.0, 2.0, 1.0]
    assert apply("white_balance", pixel(1.0, 2.0, 1.0), 1.1, 1.0, 1.0).flatten().tolist() == pytest.approx(
        [1.1 / 1.027001, 2 / 1.027001, 1 / 1.027001]
    )
    assert apply("contrast", pixel(2.0, 2.0, 2.0), 1.0).flatten().tolist() == pytest.approx([2.0] * 3, abs=1e-4)
    assert apply("ccm", pixel(1.5, 2.0, 0.5), 1, 0, 0, 0, 0, 1, 2, 0, -1).flatten().tolist() == [1.0, 0.5, 1.0]
    assert apply("tone", pixel(1.5, 1.0, 0.0625), 2.0, *[1.0] * 7).flatten().tolist() == pytest.approx([1, 1, 1 / 9])
    assert apply("sharpen", torch.full((1, 3, 4, 4), 1.5), 2.0).max() == 1
    both = Pipeline((Stage("exposure", {"ev": 2.0}), Stage("exposure", {"ev": -2.0})), "pos-isp")
    torch.testing.assert_close(both.render(bright), bright)


def test_grey_turns_red_and_colours_keep_their_hue() -> None:
    grey, strong = 0.5, 0.4  # s' of a grey pixel is (0.5 - |0.5 - v|)·0.8
    found = apply("saturation", pixel(grey, grey, grey), 1.0).flatten().tolist()
    assert found == pytest.approx([grey, grey * (1 - strong), grey * (1 - strong)])
    generator = torch.Generator().manual_seed(0)
    for colour in torch.rand(20, 3, generator=generator).tolist():
        hue, s, v = colorsys.rgb_to_hsv(*colour)
        raised = s + (1 - s) * (0.5 - abs(0.5 - v)) * 0.8
        half = [(a + b) / 2 for a, b in zip(colour, colorsys.hsv_to_rgb(hue, raised, v), strict=True)]
        assert apply("saturation", pixel(*colour), 0.5).flatten().tolist() == pytest.approx(half, abs=1e-5)
    assert apply("saturation", pixel(2.0, 1.5, 1.5), 0.0).flatten().tolist() == [1.0] * 3


def test_denoise_is_the_mean_of_a_loop_over_sums_of_squares() -> None:
    generator = torch.Generator().manual_seed(0)
    image = torch.rand(1, 3, 13, 6, generator=generator, dtype=torch.float64) * 1.3
    h = 0.3
    x = image[0].numpy()
    luma = np.einsum("c,chw->hw", [0.299, 0.587, 0.114], x.clip(0, 1))
    sums, total = np.zeros_like(x), np.zeros_like(luma)
    for dy in range(-5, 6):
        for dx in range(-5, 6):
            square = (luma - np.roll(luma, (-dy, -dx), (0, 1))) ** 2
            patch = sum(np.roll(square, (a, b), (0, 1)) for a in range(-2, 3) for b in range(-2, 3))
            weight = np.exp(-np.sqrt(np.maximum(patch, 0) + 1e-8) / (h + 1e-8))
            sums += weight * np.roll(x, (-dy, -dx), (1, 2))
            total += weight
    expected = torch.from_numpy((sums / total).clip(0, 1))[None]
    module = find_module("denoise", "pos-isp")
    params = torch.tensor([[h]], dtype=torch.float64)
    torch.testing.assert_close(module(image, params), expected, rtol=0, atol=1e-12)
    with_graph = module(image.requires_grad_(), params.requires_grad_())
    torch.testing.assert_close(with_graph, expected, rtol=0, atol=1e-12)
    assert all(bool(gradient.any()) for gradient in torch.autograd.grad(with_graph.sum(), [image, params]))


def test_the_detector_gets_values_up_to_1(tmp_path: Path) -> None:
    bright = Pipeline((Stage("exposure", {"ev": 3.5}),), "pos-isp")
    bright.save(tmp_path / "bright.json")
    result = AdaptiveISP(str(tmp_path / "bright.json"), RedDetector(), size=80)(red_box_raw())
    assert bright.render(torch.ones(1, 3, 1, 1)).max() > 11
    assert result.image.max() == 1


def test_a_module_that_does_not_clip_has_no_kernel() -> None:
    with pytest.raises(UsageError, match="clips=True or no kernel"):
        IspModule("own", "O", (), lambda image, params: image, 1.0, kernel=KernelCall("scale"), clips=False)


def test_errors_of_a_policy_name_its_modules(published: Path) -> None:
    from adaptiveisp.policies.fixed import ForcedModules

    policy = load_policy(str(imported(published)))
    with pytest.raises(PolicyError, match="sets no parameters for the module srgb; it sets exposure, gamma"):
        ForcedModules(policy, Pipeline((Stage("srgb", {}),)))
