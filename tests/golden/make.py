"""Makes `reference-small.npz` from the whole file: `python -m tests.golden.make FOLDER/reference.npz`."""

import argparse
import math
from pathlib import Path

import numpy as np

from tests.golden import CROP, CROP_MARGIN, ROLLOUTS, SAMPLED, SMALL_FILE, STRIDE

Arrays = dict[str, np.ndarray]

LAYERS = 3
CENTRE_REACH = math.hypot(1.0, 0.5)
"""Logits of boxes and classes are kept in cells whose centre is at most this far from an object's centre, in cells.

The loss matches an object with its own cell and with the neighbours to whose edge it is nearer than half a cell: their
centres are less than one cell away in one direction, and at most half a cell in the other.
"""


def sample(array: np.ndarray) -> np.ndarray:
    """Every `STRIDE`th value in row-major order."""
    return array.ravel()[::STRIDE].copy()


def module_values(full: Arrays) -> Arrays:
    """Inputs, logits, parameters and gradients of logits whole; images and their gradients as samples."""
    small = {}
    for name, array in full.items():
        if name.startswith("modules/"):
            large = name.endswith(("/output", "/grad_input"))
            small[SAMPLED + name if large else name] = sample(array) if large else array
    return small


def rollout_values(full: Arrays) -> Arrays:
    """Actions, parameters and numbers whole; a crop of the input, and samples of the same crop of the later images."""
    inner = (slice(CROP_MARGIN, -CROP_MARGIN),) * 2
    small = {"crop/rollout/input": full["rollout/input"][(..., *CROP)]}
    for rollout in ROLLOUTS:
        for key in ("selected", "probs", "params", "state", "penalty"):
            small[f"rollout/{rollout}/{key}"] = full[f"rollout/{rollout}/{key}"]
        for step, image in enumerate(full[f"rollout/{rollout}/image"]):
            small[f"{SAMPLED}crop/rollout/{rollout}/image/{step}"] = sample(image[(..., *CROP)][(..., *inner)])
    return small


def near_objects(targets: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """Cells of a layer, (rows, columns), that an object may be matched with."""
    y, x = np.mgrid[:rows, :columns] + 0.5
    near = np.zeros((rows, columns), bool)
    for cx, cy in targets[:, 2:4]:
        near |= np.hypot(x - cx * columns, y - cy * rows) <= CENTRE_REACH
    return near


def loss_values(full: Arrays) -> Arrays:
    """Everything of the detector's loss; logits of boxes and classes are 0 in cells without an object near them.

    These take no part in the loss, and their gradients are 0; the objectness stays in all cells.
    """
    small = {name: array for name, array in full.items() if name.startswith("yolo_loss/")}
    edges = [small[f"yolo_loss/edge{case}_targets"] for case in range(3)]
    of_image = [np.concatenate([small["yolo_loss/targets0"], *edges]), small["yolo_loss/targets1"]]
    for layer in range(LAYERS):
        logits = small[f"yolo_loss/pred{layer}"].copy()
        for image, targets in enumerate(of_image):
            far = ~near_objects(targets, *logits.shape[2:4])
            logits[image, :, far, :4] = logits[image, :, far, 5:] = 0
        small[f"yolo_loss/pred{layer}"] = logits
    return small


def unprocess_values(full: Arrays) -> Arrays:
    """Every second row and column of the images, which are processed pixel by pixel; the matrix whole."""
    names = [name for name in full if name.startswith("unprocess/")]
    return {name: full[name][::2, ::2] if full[name].ndim == 3 else full[name] for name in names}


def small_values(full: Arrays) -> Arrays:
    """The arrays of the small file."""
    edges = {name: array for name, array in full.items() if name.startswith("edge/")}
    return module_values(full) | rollout_values(full) | loss_values(full) | unprocess_values(full) | edges


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("full", type=Path, help="reference.npz, the whole file")
    with np.load(parser.parse_args().full) as archive:
        full = {name: archive[name] for name in archive.files}
    np.savez_compressed(SMALL_FILE, **small_values(full))
    print(f"{SMALL_FILE}: {SMALL_FILE.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
