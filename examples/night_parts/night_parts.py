"""A module, a policy, a reward and a detector for adaptiveisp, from outside it; pyproject.toml declares them."""

import torch
from torch.nn import functional as F

from adaptiveisp import Detections, IspModule, Param, Pipeline, Stage


def log_curve(image, params):
    """y = log(1 + s·x) / log(1 + s), which lifts dark tones and keeps 0 and 1.

    Args:
        image: (batch, 3, height, width), RGB in [0, 1].
        params: (batch, 1): the strength s.
    """
    strength = params[:, :, None, None]
    return torch.log1p(strength * image) / torch.log1p(strength)


LOG_CURVE = IspModule(
    "log_curve",
    "LC",  # a short name for tables
    (Param("strength", 0.001, 1000.0, "", 0.001, "log"),),  # s → 0 leaves an image unchanged
    log_curve,
    cost_ms=1.5,
    pointwise=True,  # a pixel of the result depends on that pixel alone
)


class ByBrightness:
    """The darker an image, the stronger its curve. A policy needs a name and `plan`."""

    name = "by-brightness"

    def plan(self, image):
        """One pipeline for each image of the batch, from linear RGB in [0, 1]."""
        return [Pipeline((Stage("log_curve", {"strength": self.strength(one)}),)) for one in image]

    def strength(self, image):
        """Such a strength that the mean brightness comes to about a third."""
        strengths = torch.logspace(-3, 3, 61)
        means = torch.log1p(strengths * image.mean()) / torch.log1p(strengths)
        return strengths[(means - 1 / 3).abs().argmin()].item()


def relative_reward(outcome):
    """The terms of a reward by name, one number for each image; their sum is what the policy learns to raise.

    Args:
        outcome: `adaptiveisp.RewardInputs`.
    """
    return {"detection": -outcome.loss_after, "cost": -0.02 * outcome.cost_ms}


CELL = 8  # pixels


class BrightSpots:
    """Each cell of 8 x 8 pixels is a lamp if it is bright. A real detector loads its network here."""

    name, class_names, stride, weights_sha256 = "bright-spots", ("lamp",), CELL, ""

    def scores(self, image):
        """(batch, rows, columns): the score of each cell."""
        return torch.sigmoid(20 * (F.avg_pool2d(image.mean(dim=1), CELL) - 0.5))

    def loss(self, image, targets):
        """One number for each image: cross entropy of the cells against the labelled boxes."""
        losses = []
        for scores, target in zip(self.scores(image), targets, strict=True):
            wanted = torch.zeros_like(scores)
            for x0, y0, x1, y1 in (target.boxes / CELL).round().long().tolist():
                wanted[y0:y1, x0:x1] = 1
            losses.append(F.binary_cross_entropy(scores, wanted))
        return torch.stack(losses)

    def detect(self, image, confidence=0.001, nms_iou=0.6, max_detections=300):
        """A `Detections` for each image, boxes in its pixels."""
        found = []
        for scores in self.scores(image):
            best, cells = scores.flatten().sort(descending=True)  # the highest score first
            cells = cells[best >= max(confidence, 0.5)][:max_detections]
            rows, columns = cells // scores.shape[1], cells % scores.shape[1]
            corners = torch.stack([columns, rows, columns + 1, rows + 1], dim=1).float() * CELL
            found.append(Detections(corners, scores[rows, columns], torch.zeros_like(rows)))
        return found


def load_detector():
    """The detector, for `--detector night_parts:load_detector` and the entry point."""
    return BrightSpots()
