"""Batches of which each rank computes its own rows: the pieces that connect these with the graph of the whole batch.

The parameters of all rows come from the policy, which every rank evaluates for the whole batch. A rank renders its own
rows only. In the forward pass the rendered images and the losses are gathered; in the backward pass the gradients of
the parameters are. That is the only collective of a backward pass, and it is in the graph of every rank, even of one
that has no rows.
"""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from adaptiveisp.training.clock import Clock
from adaptiveisp.training.distributed import Ranks
from adaptiveisp.training.gradients import Precision, detector_loss, differentiated_loss
from adaptiveisp.types import Detector, Image, Targets


def own_leaf(ranks: Ranks, whole: Float[Tensor, "batch n"], counts: Sequence[int]) -> Float[Tensor, "own n"]:
    """The rows of this rank as the start of a graph of its own, which `rejoined` connects with that of the batch.

    Args:
        ranks: of the run.
        whole: parameters of all rows, the same on every rank; where it is alone, the result is this tensor.
        counts: rows of each rank.
    """
    if ranks.alone:
        return whole
    return whole[ranks.own(counts)].detach().requires_grad_(whole.requires_grad)


def rejoined(
    ranks: Ranks,
    whole: Float[Tensor, "batch n"],
    leaves: Sequence[Tensor],
    image: Float[Tensor, "own 3 height width"],
    counts: Sequence[int],
) -> Float[Tensor, "batch 3 height width"]:
    """The images of all ranks, differentiable in the parameters of all rows.

    The gradient of the result counts only in the rows of this rank, as `split_losses` gives it. Every rank has to call
    this, and to differentiate the result, the same number of times.

    Args:
        ranks: of the run.
        whole: parameters of all rows.
        leaves: those of this rank's rows, see `own_leaf`; their columns side by side are those of `whole`.
        image: of this rank's rows, computed from the leaves.
        counts: rows of each rank.
    """
    if ranks.alone:
        return image
    joined: Tensor = _Rejoined.apply(whole, ranks, leaves, [image], counts)  # type: ignore[no-untyped-call]
    return joined


class _Rejoined(torch.autograd.Function):
    """`rejoined`; the rows of this rank keep the graph that leads to their leaves."""

    @staticmethod
    def forward(
        ctx: Any, whole: Tensor, ranks: Ranks, leaves: Sequence[Tensor], images: Sequence[Tensor], counts: Sequence[int]
    ) -> Tensor:
        # The images come in a list, so that autograd takes no notice of their own graph, which some ranks lack.
        ctx.ranks, ctx.leaves, ctx.image, ctx.counts = ranks, leaves, images[0], counts
        return ranks.gather(images[0], counts)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None, None]:
        ranks, leaves = ctx.ranks, list(ctx.leaves)
        learning = [leaf for leaf in leaves if leaf.requires_grad]  # a step of all images may have no parameters
        found: dict[int, Tensor] = {}
        if ctx.image.requires_grad:
            own = gradient[ranks.own(ctx.counts)]
            gradients = torch.autograd.grad(ctx.image, learning, own, allow_unused=True, materialize_grads=True)
            found = {id(leaf): one for leaf, one in zip(learning, gradients, strict=True)}
        rows = torch.cat([found.get(id(leaf), torch.zeros_like(leaf)) for leaf in leaves], dim=1)
        ctx.image = ctx.leaves = None
        return ranks.gather(rows, ctx.counts), None, None, None, None


def split_losses(
    ranks: Ranks,
    counts: Sequence[int],
    detector: Detector,
    image: Image,
    targets: Sequence[Targets],
    precision: Precision,
    clock: Clock | None = None,
) -> Float[Tensor, " batch"]:
    """The detector's loss of each image, of which every rank computes its own; differentiable in these alone.

    Args:
        ranks: of the run.
        counts: images of each rank.
        detector, image, targets, precision: as for `gradients.differentiated_loss`, of all images.
        clock: measures forward and backward pass; None computes no gradient.
    """

    def losses_of(image: Image, targets: list[Targets]) -> Float[Tensor, " own"]:
        if clock is None:
            return detector_loss(detector, image, targets, precision)
        return differentiated_loss(detector, image, targets, precision, clock)

    with torch.set_grad_enabled(clock is not None):
        if ranks.alone:
            return losses_of(image, list(targets))
        rows = ranks.own(counts)
        own = image[rows]
        # A rank without an image has a loss of no rows, so that its graph is that of the others.
        losses = losses_of(own, list(targets[rows])) if len(own) else own.flatten(1).sum(dim=1)
        gathered: Tensor = _Gathered.apply(losses, ranks, counts)  # type: ignore[no-untyped-call]
        return gathered


class _Gathered(torch.autograd.Function):
    """The values of all ranks; a rank's own rows have a gradient."""

    @staticmethod
    def forward(ctx: Any, own: Tensor, ranks: Ranks, counts: Sequence[int]) -> Tensor:
        ctx.rows = ranks.own(counts)
        return ranks.gather(own, counts)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        return gradient[ctx.rows], None, None
