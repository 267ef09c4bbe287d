"""Trials of the user's own modules and reward before a run spends its budget on them."""

from collections.abc import Sequence
from typing import Any

import torch

from adaptiveisp.data.references import SIDE as REFERENCE_SIDE
from adaptiveisp.errors import AdaptiveISPError, UsageError, logger
from adaptiveisp.isp.module import IspModule
from adaptiveisp.isp.registry import find_module
from adaptiveisp.isp.trial import SIDE, check_module, of_ones_own
from adaptiveisp.training.rl.rewards import DEFAULT_REWARD, RewardInputs, reward_terms
from adaptiveisp.training.trial_loss import needs_gradients
from adaptiveisp.utils.own_code import reason_of


def own_modules(settings: Any) -> list[IspModule]:
    """The modules in the settings of a method that do not belong to the package."""
    names: Sequence[str] = getattr(settings, "chosen", None) or getattr(settings, "modules", None) or ()
    module_set = getattr(settings, "module_set", "extended")
    return of_ones_own(find_module(name, module_set) for name in names)


def check_modules(method: str, settings: Any, device: str) -> None:
    """Tries the modules of a run that do not belong to the package.

    Args:
        method, settings, device: of the run.

    Raises:
        UsageError: names the first faulty module and its fault, see `isp.trial`.
    """
    for module in own_modules(settings):
        check_module(module, needs_gradients(method, settings), device)


def check_reward(method: str, settings: Any, device: str) -> None:
    """Tries the reward of a run on the outcomes of two pipelines, the second of which has no modules.

    Args:
        method, settings, device: of the run.

    Raises:
        UsageError: it fails, its terms are not finite or have another shape, or the parameters cannot learn from it.
    """
    reward = getattr(settings, "reward", DEFAULT_REWARD)
    if reward == DEFAULT_REWARD:
        return
    if method == "sequence":
        _try_reward(reward, method, settings, device, missing=("loss_before",))
        _try_reward(reward, method, settings, device, missing=("loss_before", "reference"))
        return
    _try_reward(reward, method, settings, device, missing=("reference",))
    if method == "actor_critic" and settings.imitation_warmup:
        _try_reward(reward, method, settings, device, missing=("reference", "loss_before"))


def _try_reward(reward: str, method: str, settings: Any, device: str, missing: Sequence[str]) -> None:
    """Tries a reward on inputs of which `missing` are None, the last named in the error; else as `check_reward`."""
    image = torch.rand(2, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0)).to(device).requires_grad_()
    loss = torch.tensor([0.5, 1.0], device=device, requires_grad=True)
    photos = torch.full((2, 3, REFERENCE_SIDE, REFERENCE_SIDE), 0.5, device=device)
    inputs = RewardInputs(
        loss_after=loss,
        loss_before=None if "loss_before" in missing else torch.tensor([1.0, 1.0], device=device),
        cost_ms=torch.tensor([10.0, 0.0], device=device),
        n_modules=torch.tensor([3.0, 0.0], device=device),
        image=image,
        runtime_weight=getattr(settings, "runtime_weight", 0.0),
        brightness_weight=getattr(settings, "brightness_weight", 0.0),
        reference=None if "reference" in missing else photos,
        colour_weight=getattr(settings, "colour_weight", 0.0),
        highlight_weight=getattr(settings, "highlight_weight", 0.0),
    )
    try:
        total = torch.stack(list(reward_terms(reward, inputs).values())).sum()
    except AdaptiveISPError:
        raise
    except Exception as error:  # whatever the user's own code raises
        logger.debug("reward %s", reward, exc_info=error)
        what = f" in which {missing[-1]} is None"
        raise UsageError(f"reward {reward}: fails on a trial batch{what} ({reason_of(error)}); correct it") from error
    if not needs_gradients(method, settings):
        return
    gradients: tuple[torch.Tensor | None, ...] = (None,)
    if total.requires_grad:
        gradients = torch.autograd.grad(total, [loss, image], allow_unused=True)
    if all(gradient is None for gradient in gradients):
        raise UsageError(
            f"reward {reward}: has no gradient for loss_after or image, from which the parameters of {method} learn; "
            "compute it by differentiable operations of PyTorch, without detach, item or numpy"
        )
