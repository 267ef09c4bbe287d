"""The modules of baselines: values by hand, OpenCV's own CLAHE, and where the modules may be named."""

import math
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from adaptiveisp.errors import AdaptiveISPError, UsageError
from adaptiveisp.isp.costs import load_costs, save_costs
from adaptiveisp.isp.pipeline import Pipeline, Stage
from adaptiveisp.isp.registry import BASELINES, EXTENDED, HELPERS, MODULE_SETS, IspModule, find_module
from adaptiveisp.training.methods.module_choice import check_choice


def curve(name: str, param: str, value: float, *levels: float) -> list[float]:
    image = torch.tensor(levels).reshape(1, 1, 1, -1).expand(1, 3, 1, -1)
    out = Pipeline((Stage(name, {param: value}),), "paper").render(image)
    assert torch.equal(out[:, 0], out[:, 1]) and torch.equal(out[:, 0], out[:, 2])
    return out[0, 0, 0].tolist()  # type: ignore[no-any-return]


def test_reinhard_by_hand() -> None:
    # w = 4: x = 1 gives 1·(1 + 1/16)/2, x = 2 gives 2·(1 + 2/16)/3, and the white point x = 4 gives 1.
    assert curve("reinhard", "white", 4.0, 0.0, 0.25, 0.5, 1.0) == pytest.approx([0, 17 / 32, 0.75, 1])


def test_the_logarithm_by_hand() -> None:
    # a = 15: log2(1 + 15 x) / 4.
    assert curve("log_tone", "strength", 15.0, 0.0, 0.2, 7 / 15, 1.0) == pytest.approx([0, 0.5, 0.75, 1])


@pytest.mark.parametrize(("name", "param", "value"), [("reinhard", "white", 16.0), ("log_tone", "strength", 50.0)])
def test_the_curves_never_fall_and_lift_every_grey(name: str, param: str, value: float) -> None:
    levels = np.linspace(0, 1, 257)
    made = np.array(curve(name, param, value, *levels))
    assert (np.diff(made) > 0).all() and (made[1:-1] > levels[1:-1]).all()


def grey_levels(seed: int = 0) -> np.ndarray:
    """A ramp with noise in 8 bits, whose sides are no multiples of the tiles."""
    noise = np.random.default_rng(seed).integers(0, 40, (61, 83))
    return (noise + np.linspace(20, 120, 83)).astype(np.uint8)


def test_clahe_of_a_grey_image_is_opencv_s() -> None:
    cv2 = pytest.importorskip("cv2")
    levels = grey_levels()
    expected = cv2.createCLAHE(3.0, (8, 8)).apply(levels)
    assert np.abs(expected.astype(int) - levels).max() > 20, "the example shows nothing"
    image = torch.from_numpy(levels)[None, None].expand(1, 3, -1, -1) / 255
    out = find_module("clahe", "wide")(image, torch.tensor([[3.0]]))
    torch.testing.assert_close(out[0, 1] * 255, torch.from_numpy(expected).float(), rtol=0, atol=1e-3)


def test_clahe_keeps_the_differences_of_the_channels_and_the_gradient() -> None:
    pytest.importorskip("cv2")
    grey = torch.from_numpy(grey_levels())[None, None] / 255
    image = (grey + torch.tensor([0.05, -0.02, 0.1]).reshape(1, 3, 1, 1)).requires_grad_()
    function = find_module("clahe", "wide").function
    out = function(image, torch.tensor([[2.0]]))
    torch.testing.assert_close(out[:, 0] - out[:, 1], image[:, 0] - image[:, 1])
    out.sum().backward()
    assert image.grad is not None and torch.equal(image.grad, torch.ones_like(image))


def test_each_image_of_a_batch_has_its_own_limit() -> None:
    pytest.importorskip("cv2")
    image = torch.from_numpy(grey_levels())[None, None].expand(2, 3, -1, -1) / 255
    out = find_module("clahe", "wide")(image, torch.tensor([[0.0], [4.0]]))
    assert torch.equal(out[0], image[0]) and not torch.allclose(out[1], image[1], atol=0.05)


def test_without_opencv_a_line_names_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(AdaptiveISPError, match=r"^cv2 is not installed; run: pip install 'adaptiveisp\[opencv\]'$"):
        find_module("clahe", "wide")(torch.rand(1, 3, 9, 9), torch.tensor([[2.0]]))


@pytest.mark.parametrize("module", BASELINES, ids=lambda module: module.name)
def test_no_set_has_them_and_no_policy_chooses_them(module: IspModule) -> None:
    assert not any(module.name == other.name for modules in MODULE_SETS.values() for other in modules)
    for module_set in MODULE_SETS:
        assert find_module(module.name, module_set) is module
        with pytest.raises(UsageError, match=f"{module.name} is a helper, which no policy chooses"):
            check_choice(module_set, (module.name,))


def test_cost_tables_may_lack_them(tmp_path: Path) -> None:
    table = {module.name: 1.0 for module in (*EXTENDED, *HELPERS)}
    for costs in (table, {**table, "reinhard": 0.5, "clahe": math.pi}):
        save_costs(tmp_path / "costs.json", costs, 512, {})
        assert load_costs(tmp_path / "costs.json") == costs
