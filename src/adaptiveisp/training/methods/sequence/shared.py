"""The parts of an iteration of which each rank does its own images: observing and rendering."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from adaptiveisp.data.raw_frames import frames_of
from adaptiveisp.data.training_images import TrainingImage
from adaptiveisp.policies.sequence.networks import Actions, Observation, SequenceNetwork, observe, run_sequences
from adaptiveisp.training.distributed import Ranks
from adaptiveisp.training.methods.sequence.settings import SequenceConfig
from adaptiveisp.training.split_batch import own_leaf, rejoined
from adaptiveisp.types import Image


def observed(ranks: Ranks, image: Image, shares: Sequence[int], config: SequenceConfig) -> Observation:
    """The observation of all images; its prefix and its preprocessed images are those of this rank's share.

    Args:
        ranks: of the run.
        image: all images.
        shares: number of images of each rank.
        config: names the preprocessing.
    """
    found = observe(image[ranks.own(shares)], config.preprocessing, config.module_set)
    planes, numbers = (ranks.gather(values, shares) for values in (found.planes, found.numbers))
    return found._replace(planes=planes, numbers=numbers)


def rendered(
    ranks: Ranks,
    rows: Sequence[int],
    sources: Sequence[TrainingImage],
    preprocessed: Float[Tensor, "own 3 height width"],
    network: SequenceNetwork,
    actions: Actions,
    tried: Float[Tensor, "batch n_logits"],
    config: SequenceConfig,
) -> Image:
    """All candidates, differentiable in `tried` unless only the choice of modules learns.

    Args:
        ranks: of the run.
        rows: number of candidates of each rank.
        sources: images of this rank.
        preprocessed: these after the preprocessing.
        network: maps z to parameters.
        actions, tried: modules and z of all candidates.
        config: says whether parameters learn.
    """
    group_size = rows[ranks.rank] // len(sources)
    repeated = preprocessed.repeat_interleave(group_size, dim=0)
    with torch.set_grad_enabled(config.sets_parameters):
        leaf, own = own_leaf(ranks, tried, rows), actions[ranks.own(rows)]
        frames = frames_of(sources, group_size)
        image = run_sequences(repeated, network.modules_in_order, own, network.params(leaf), frames)
        return rejoined(ranks, tried, [leaf], image, rows)
