"""A complete small detector of one's own, for `--detector own_detector:load`: red things are cups."""

import torch
from torch.nn import functional as F

from adaptiveisp import Detections

CELL = 8  # pixels; a real detector loads its network here instead


class RedCells:
    """Scores cells of 8 x 8 pixels by how red they are; all red cells together are one object."""

    name, class_names, stride, weights_sha256 = "red-cells", ("cup",), CELL, ""

    def logits(self, image):
        """One number a cell, (batch, rows, columns), from RGB in [0, 1]: the more red, the higher."""
        red, green, blue = F.avg_pool2d(image.float(), CELL).unbind(1)
        return 20 * (red - torch.maximum(green, blue)) - 2

    def loss(self, image, targets):
        """One number an image: cross-entropy of each cell with whether its centre lies in a box."""
        logits = self.logits(image)
        y, x = torch.meshgrid(*(torch.arange(n, device=image.device) for n in logits.shape[1:]), indexing="ij")
        centre = (torch.stack((x, y), dim=-1)[..., None, :] + 0.5) * CELL  # (rows, columns, 1, xy)
        boxes = [target.boxes.to(image.device) for target in targets]
        inside = [((centre > box[:, :2]) & (centre < box[:, 2:])).all(-1).any(-1) for box in boxes]
        return F.binary_cross_entropy_with_logits(logits, torch.stack(inside).float(), reduction="none").mean((1, 2))

    def detect(self, image, confidence=0.001, nms_iou=0.6, max_detections=300):
        """A list with one `Detections` an image, boxes (x0, y0, x1, y1) in pixels of `image`."""
        return [self._detect(score, confidence) for score in self.logits(image).detach().sigmoid()]

    def _detect(self, score, confidence):
        y, x = (score > max(confidence, 0.5)).nonzero(as_tuple=True)
        box = score.new_tensor([[x.min(), y.min(), x.max() + 1, y.max() + 1]] if len(x) else []).reshape(-1, 4) * CELL
        return Detections(box, score.max().expand(len(box)), torch.zeros(len(box), dtype=torch.int64))


def load(device="cpu"):
    """What `--detector own_detector:load` calls; a network would move to `device`."""
    return RedCells()
