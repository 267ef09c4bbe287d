"""The penalties on casts and burnt highlights."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from adaptiveisp.data.random_crop import Crop
from adaptiveisp.data.references import reference_of, stacked_references
from adaptiveisp.data.training_images import TrainingImage
from adaptiveisp.errors import UsageError
from adaptiveisp.training.config import TrainConfig
from adaptiveisp.training.inputs import open_training_images
from adaptiveisp.training.methods.fixed import Fixed, FixedConfig
from adaptiveisp.training.methods.sequence.learner import SequenceLearner
from adaptiveisp.training.methods.sequence.settings import SequenceConfig
from adaptiveisp.training.rl.colour import colour_penalty, grey_cells, highlight_penalty
from adaptiveisp.training.rl.rewards import RewardInputs, pipeline_reward
from adaptiveisp.types import Targets
from adaptiveisp.utils.color import neutral_difference, srgb_encode, srgb_to_lab
from tests.support.fake_detector import RedDetector
from tests.support.photos import labelled_photos
from tests.training.methods.test_actor_critic import WantsLight

color = pytest.importorskip("skimage.color", reason="needs scikit-image")


def colours(n: int = 400) -> torch.Tensor:
    """Random code values, half of them nearly grey."""
    generator = torch.Generator().manual_seed(0)
    free = torch.rand(1, 3, n, 1, generator=generator)
    level = torch.rand(1, 1, n, 1, generator=generator)
    grey = (level + 0.04 * torch.randn(1, 3, n, 1, generator=generator)).clamp(0, 1)
    return torch.cat([free, grey], dim=2)


def test_the_difference_from_neutral_is_that_of_another_library() -> None:
    codes = colours()
    theirs = color.rgb2lab(codes[0].permute(1, 2, 0).double().numpy())
    ours = srgb_to_lab(codes)[0].permute(1, 2, 0).numpy()
    np.testing.assert_allclose(ours, theirs, atol=0.05)  # their white has four digits
    neutral = np.stack([theirs[..., 0], *[np.zeros_like(theirs[..., 0])] * 2], axis=-1)
    np.testing.assert_allclose(neutral_difference(codes)[0].numpy(), color.deltaE_ciede2000(theirs, neutral), atol=0.06)


def test_the_difference_from_neutral_has_a_finite_gradient_everywhere() -> None:
    codes = torch.cat([colours(50), torch.zeros(1, 3, 1, 1), torch.ones(1, 3, 1, 1)], dim=2).requires_grad_()
    neutral_difference(codes).sum().backward()
    assert codes.grad is not None and bool(codes.grad.isfinite().all())


def test_only_what_is_grey_in_the_photo_counts() -> None:
    reference = torch.full((3, 3, 64, 64), 0.5)
    reference[:, 0, :, 32:] = 0.9  # the right half is red
    reference[1, :, :, :32] = 0.02  # black
    reference[2] = torch.nan
    grey = grey_cells(reference)
    assert grey[0, :, :32].all() and not grey[0, :, 32:].any() and not grey[1:].any()
    image = reference[:1].expand(3, -1, -1, -1).clone()
    assert colour_penalty(image, reference).tolist() == pytest.approx([0.0, 0.0, 0.0], abs=0.02)
    image[:, 2, :, :32] = 0.3
    penalty = colour_penalty(image, reference)
    assert penalty[0] == pytest.approx(float(neutral_difference(image[:1, :, :1, :1])), rel=1e-4)
    assert penalty[1:].tolist() == [0.0, 0.0] and colour_penalty(image, None).tolist() == [0.0] * 3


def test_few_grey_cells_count_less() -> None:
    reference = torch.zeros(1, 3, 64, 64)
    reference[:, :, :2, :32] = 0.5  # 64 of 4096 cells, a third of 5 %
    image = torch.full((1, 3, 64, 64), 0.5)
    image[:, 0] = 0.6
    whole = colour_penalty(image, torch.full_like(reference, 0.5))
    assert float(colour_penalty(image, reference) / whole) == pytest.approx(64 / (0.05 * 4096))


def test_highlights_that_the_photo_has_are_no_fault() -> None:
    reference = torch.full((1, 3, 64, 64), 0.5)
    reference[:, :, :16] = 1.0
    assert float(highlight_penalty(reference, reference)) == 0.0
    assert float(highlight_penalty(torch.ones_like(reference), reference)) == pytest.approx(0.75)
    assert highlight_penalty(reference[:, :, :, :8], None).tolist() == [0.0]


def test_the_reward_has_the_terms_only_where_they_have_a_weight() -> None:
    ones, image = torch.ones(2), torch.rand(2, 3, 64, 64)
    inputs = RewardInputs(ones, None, ones, ones, image, reference=torch.full((2, 3, 64, 64), 0.5))
    assert list(pipeline_reward(inputs)) == ["detection", "runtime", "brightness"]
    terms = pipeline_reward(replace(inputs, colour_weight=0.5, highlight_weight=2.0))
    torch.testing.assert_close(terms["colour"], -0.5 * colour_penalty(image, inputs.reference))
    torch.testing.assert_close(terms["highlights"], -2.0 * highlight_penalty(image, inputs.reference))


def test_a_reference_is_the_photo_of_the_same_crop() -> None:
    pixels = torch.randint(0, 256, (3, 100, 140), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    reference = reference_of(pixels, Crop(10, 3, 64, flipped=True))
    torch.testing.assert_close(reference, pixels[:, 10:74, 3:67].flip(2) / 255)
    both = stacked_references([reference, None], 2)
    assert both is not None and both.shape == (4, 3, 64, 64)
    assert torch.equal(both[1], reference) and bool(both[2:].isnan().all())
    assert stacked_references([None, None]) is None


class RedGreys:
    """Grey scenes under a reddish light, with their photos."""

    def __getitem__(self, number: int) -> TrainingImage:
        grey = torch.full((3, 64, 64), 0.3 + 0.05 * (number % 4))
        image = grey * torch.tensor([1.3, 1.0, 0.8]).reshape(3, 1, 1)
        targets = Targets(torch.zeros(0, 4), torch.zeros(0, dtype=torch.long))
        return TrainingImage(number, image, targets, 0.1, srgb_encode(grey))


@pytest.mark.parametrize("method", ["sequence", "fixed"])
def test_a_policy_learns_neutral_greys(method: str) -> None:
    """The detector does not see colours; without the term white balance stays where it was."""
    left = {}
    for weight in (0.0, 1.0):
        settings: dict[str, Any] = {"modules": ("white_balance",), "preprocessing": "raw", "size": 64}
        settings |= {"colour_weight": weight, "precision": "float32"}
        if method == "fixed":
            learner: Any = Fixed(FixedConfig(**settings), RedGreys(), WantsLight(), 8 * 24, 0)
        else:
            settings |= {"expert_modules": ("white_balance",), "imitation_warmup": 1.0, "averaging": 0.9}
            learner = SequenceLearner(SequenceConfig(**settings), RedGreys(), WantsLight(), 8 * 24, 0)
        while not learner.done:
            metrics, _ = learner.iterate()
        assert method == "fixed" or ("colour" in metrics["reward"]) == bool(weight)
        images = torch.stack([RedGreys()[number].image for number in range(4)])
        plans = learner.policy().plan(images)
        rendered = torch.cat([plan.render(images[i : i + 1]) for i, plan in enumerate(plans)])
        left[weight] = float(neutral_difference(rendered).mean())
    assert left[0.0] > 10 and left[1.0] < 3


def test_raws_of_a_camera_have_no_photo_to_compare_with(tmp_path: Path) -> None:
    options = TrainConfig(data=str(tmp_path))
    for name in ("colour_weight", "highlight_weight"):
        with pytest.raises(UsageError, match=f"^{name} compares with the photos .*; set {name}=0, or give photos and"):
            open_training_images(options, SequenceConfig(**{name: 1.0}), RedDetector())
    labels = labelled_photos(tmp_path / "photos")
    options = replace(options, data=str(labels), images=str(tmp_path / "photos" / "images"), light="normal")
    settings = SequenceConfig(size=32, colour_weight=1.0)
    reference = open_training_images(options, settings, RedDetector())[3].reference
    assert reference is not None and reference.shape == (3, 64, 64)
