"""Inference of the step-wise policy's networks: batch norm is folded, and only the chosen module's head is evaluated.

The heads of all ten modules would read 21 MB of weights at every step, of which 2 MB are used.
"""

import copy
import math
from collections.abc import Sequence

import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from adaptiveisp.isp.module import IspModule
from adaptiveisp.kernels.cuda_graphs import Recordings
from adaptiveisp.policies.stepwise.networks import SLOPE, Actor, Encoder, Head, ObservationPlanes, probabilities
from adaptiveisp.types import ParamTensor


class EncoderInference:
    """An `Encoder` in evaluation mode as four convolutions, with batch norm folded into their weights."""

    def __init__(self, encoder: Encoder):
        layers = list(encoder.layers)
        self.convolutions: list[tuple[Tensor, Tensor]] = []
        for convolution, norm in zip(layers[::3], layers[1::3], strict=True):
            assert isinstance(convolution, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d)
            assert norm.running_mean is not None and norm.running_var is not None and convolution.bias is not None
            scale = norm.weight / (norm.running_var + norm.eps).sqrt()
            weight = convolution.weight * scale[:, None, None, None]
            bias = norm.bias + (convolution.bias - norm.running_mean) * scale
            self.convolutions.append((weight.detach().contiguous(), bias.detach()))

    def __call__(self, view: ObservationPlanes) -> Float[Tensor, "batch 4096"]:
        """Features, flattened channel by channel, row by row."""
        features: Tensor = view
        for weight, bias in self.convolutions:
            features = F.leaky_relu_(F.conv2d(features, weight, bias, stride=2, padding=1), SLOPE)
        return features.flatten(1)


class ActorInference:
    """An `Actor` in evaluation mode whose probabilities and parameters are computed separately.

    Args:
        actor: its weights are copied; later training does not change them here.
    """

    def __init__(self, actor: Actor):
        self.recordings = Recordings()
        self.modules: Sequence[IspModule] = actor.modules_in_order
        self.select = EncoderInference(actor.selection_encoder)
        self.set_parameters = EncoderInference(actor.parameter_encoder)
        self.selection_head = copy.deepcopy(actor.selection_head)
        self.heads: dict[str, Head] = dict(copy.deepcopy(actor.parameter_heads).items())  # type: ignore[arg-type]

    def probs(
        self, view: ObservationPlanes, closed: Bool[Tensor, "batch n_modules"] | None = None
    ) -> Float[Tensor, "batch n_modules"]:
        """Probabilities of the modules.

        Args:
            view: the observation.
            closed: modules that must not be chosen.
        """
        (logits,) = self.recordings.run("logits", lambda view: (self.selection_head(self.select(view)),), view)
        return probabilities(logits if closed is None else logits.masked_fill(closed, -math.inf))

    def features(self, view: ObservationPlanes) -> Float[Tensor, "batch 4096"]:
        """The features from which `params` computes the parameters of any module."""
        return self.recordings.run("features", lambda view: (self.set_parameters(view),), view)[0]

    def params(self, features: Float[Tensor, "batch 4096"], module: IspModule) -> ParamTensor:
        """Physical parameters of one module."""
        if not module.params:
            return features.new_zeros(len(features), 0)
        head = self.heads[module.name]
        name = "params", module.name
        return self.recordings.run(name, lambda given: (module.params_from_logits(head(given)),), features)[0]
