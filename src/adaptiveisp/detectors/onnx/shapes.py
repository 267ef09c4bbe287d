"""ONNX operators in PyTorch: shapes, indexing, padding, and the suppression of boxes; see `onnx.operators`."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from adaptiveisp.detectors.boxes import cxcywh_to_xyxy, nms
from adaptiveisp.detectors.onnx.operators import Node, Operator, ints, plain


def shape(node: Node, x: Tensor) -> Tensor:
    """The sizes of the axes."""
    sizes = list(x.shape)[node.get("start", 0) : node.get("end")]
    return torch.tensor(sizes, dtype=torch.int64, device=x.device)


def reshape(node: Node, x: Tensor, sizes: Tensor) -> Tensor:
    """The values in another shape: 0 keeps an axis, and -1 infers one."""
    wanted = ints(sizes)
    if not node.get("allowzero", 0):
        wanted = [x.shape[place] if size == 0 else size for place, size in enumerate(wanted)]
    return x.reshape(wanted)


def flatten(node: Node, x: Tensor) -> Tensor:
    """A matrix whose rows are the axes before `axis`, and whose columns are the others."""
    axis = node.get("axis", 1)
    axis = axis + x.ndim if axis < 0 else axis
    return x.reshape(math.prod(x.shape[:axis]), -1)


def transpose(node: Node, x: Tensor) -> Tensor:
    """The axes in another order, by default the reverse."""
    return x.permute(node.get("perm") or tuple(reversed(range(x.ndim))))


def squeeze(node: Node, x: Tensor, axes: Tensor | None = None) -> Tensor:
    """The values without axes of size 1."""
    chosen = ints(axes) if axes is not None else node.get("axes")
    return x.squeeze() if chosen is None else x.squeeze(tuple(chosen))


def unsqueeze(node: Node, x: Tensor, axes: Tensor | None = None) -> Tensor:
    """The values with new axes of size 1 at the given positions of the result."""
    chosen = ints(axes) if axes is not None else list(node.get("axes"))
    ndim = x.ndim + len(chosen)
    for axis in sorted(axis % ndim for axis in chosen):
        x = x.unsqueeze(axis)
    return x


def concat(node: Node, *parts: Tensor) -> Tensor:
    """The parts concatenated along an axis."""
    return torch.cat(parts, dim=node.get("axis", 1))


def split(node: Node, x: Tensor, sizes: Tensor | None = None) -> tuple[Tensor, ...]:
    """Parts along an axis, of given sizes or of equal size."""
    axis = node.get("axis", 0)
    given = ints(sizes) if sizes is not None else node.get("split")
    return torch.split(x, list(given) if given else -(-x.shape[axis] // len(node.outputs)), dim=axis)


def slices(
    node: Node,
    x: Tensor,
    starts: Tensor | None = None,
    ends: Tensor | None = None,
    axes: Tensor | None = None,
    steps: Tensor | None = None,
) -> Tensor:
    """A slice from start to end along some axes; the bounds are attributes before opset 10."""
    first = ints(starts if starts is not None else node.get("starts"))
    last = ints(ends if ends is not None else node.get("ends"))
    given = axes if axes is not None else node.get("axes")
    places = ints(given) if given is not None else list(range(len(first)))
    by = ints(steps) if steps is not None else [1] * len(first)
    for axis, start, end, step in zip(places, first, last, by, strict=True):
        start, end, step = slice(start, end, step).indices(x.shape[axis])
        if step == 1:
            x = x.narrow(axis, start, max(0, end - start))
        else:
            x = x.index_select(axis, torch.arange(start, max(start, end) if step > 0 else end, step, device=x.device))
    return x


def gather(node: Node, x: Tensor, indices: Tensor) -> Tensor:
    """Slices along an axis, arranged in the shape of the indices."""
    axis = node.get("axis", 0) % x.ndim
    chosen = _from_the_front(indices, x.shape[axis])
    picked = x.index_select(axis, chosen.reshape(-1))
    return picked.reshape((*x.shape[:axis], *indices.shape, *x.shape[axis + 1 :]))


def gather_elements(node: Node, x: Tensor, indices: Tensor) -> Tensor:
    """One value for each index along an axis, at the position of the index along the other axes."""
    axis = node.get("axis", 0) % x.ndim
    return x.gather(axis, _from_the_front(indices, x.shape[axis]))


def gather_nd(node: Node, x: Tensor, indices: Tensor) -> Tensor:
    """The values at the index tuples in the last axis of `indices`; `batch_dims` leading axes are shared."""
    common = node.get("batch_dims", 0)
    leading = x.shape[:common]
    rows = math.prod(leading)
    depth = indices.shape[-1]
    flat, places = x.reshape(rows, *x.shape[common:]), indices.reshape(rows, -1, depth)
    row = torch.arange(rows, device=x.device)[:, None].expand(rows, places.shape[1])
    columns = tuple(_from_the_front(places[..., i], flat.shape[1 + i]) for i in range(depth))
    at = (row, *columns)
    return flat[at].reshape((*indices.shape[:-1], *x.shape[common + depth :]))


def scatter_nd(node: Node, x: Tensor, indices: Tensor, updates: Tensor) -> Tensor:
    """`x` with `updates` at the index tuples in the last axis of `indices`."""
    if node.get("reduction", "none") not in ("none", "add"):
        raise NotImplementedError(f"reduction {node.get('reduction')}")
    columns = tuple(_from_the_front(indices[..., i], x.shape[i]) for i in range(indices.shape[-1]))
    return x.index_put(columns, updates, accumulate=node.get("reduction", "none") == "add")


def scatter_elements(node: Node, x: Tensor, indices: Tensor, updates: Tensor) -> Tensor:
    """`x` with `updates` along an axis, one for each index."""
    if node.get("reduction", "none") != "none":
        raise NotImplementedError(f"reduction {node.get('reduction')}")
    axis = node.get("axis", 0) % x.ndim
    return x.scatter(axis, _from_the_front(indices, x.shape[axis]), updates)


def _from_the_front(indices: Tensor, size: int) -> Tensor:
    places = indices.long()
    return torch.where(places < 0, places + size, places)


def expand(node: Node, x: Tensor, sizes: Tensor) -> Tensor:
    """The values broadcast along axes of size 1."""
    wanted = ints(sizes)
    ndim = max(x.ndim, len(wanted))
    wanted, own = [1] * (ndim - len(wanted)) + wanted, [1] * (ndim - x.ndim) + list(x.shape)
    return x.expand([mine if size == 1 else size for size, mine in zip(wanted, own, strict=True)])


def tile(node: Node, x: Tensor, repeats: Tensor) -> Tensor:
    """The values repeated along each axis."""
    return x.repeat(ints(repeats))


def constant(node: Node) -> Tensor:
    """A constant in the file."""
    value = next(iter(node.attributes.values()))
    if isinstance(value, Tensor):
        return value
    is_float = next(iter(node.attributes)).startswith("value_float")
    return torch.tensor(value, dtype=torch.float32 if is_float else torch.int64)


def constant_of_shape(node: Node, sizes: Tensor) -> Tensor:
    """A tensor of one repeated value."""
    value = node.get("value", torch.zeros(1)).reshape(())
    return torch.full(ints(sizes), value.item(), dtype=value.dtype, device=sizes.device)


def arange(node: Node, start: Tensor, limit: Tensor, delta: Tensor) -> Tensor:
    """Numbers from `start` in steps of `delta`, below `limit`."""
    return torch.arange(start.item(), limit.item(), delta.item(), dtype=start.dtype, device=start.device)


def one_hot(node: Node, indices: Tensor, depth: Tensor, values: Tensor) -> Tensor:
    """The second of `values` at each index of a new axis, the first elsewhere."""
    count, axis = int(depth), node.get("axis", -1) % (indices.ndim + 1)
    hit = _from_the_front(indices, count).unsqueeze(axis)
    place = torch.arange(count, device=indices.device).reshape(-1, *[1] * (indices.ndim - axis))
    return torch.where(hit == place, values[1], values[0])


def triangle(node: Node, x: Tensor, k: Tensor | None = None) -> Tensor:
    """The values on one side of a diagonal, and zero on the other."""
    diagonal = int(k) if k is not None else 0
    return x.triu(diagonal) if node.get("upper", 1) else x.tril(diagonal)


def pad(
    node: Node, x: Tensor, pads: Tensor | None = None, value: Tensor | None = None, axes: Tensor | None = None
) -> Tensor:
    """Padding with a constant, with the edge values, or by reflection."""
    widths = ints(pads if pads is not None else node.get("pads"))
    chosen = [axis % x.ndim for axis in ints(axes)] if axes is not None else list(range(x.ndim))
    before, after = widths[: len(chosen)], widths[len(chosen) :]
    mode = node.get("mode", "constant")
    if mode == "constant":
        both = dict(zip(chosen, zip(before, after, strict=True), strict=True))
        flat = [width for axis in reversed(range(x.ndim)) for width in both.get(axis, (0, 0))]
        return F.pad(x, flat, value=float(value) if value is not None else node.get("value", 0.0))
    if mode not in ("edge", "reflect"):
        raise NotImplementedError(f"mode {mode}")
    for axis, low, high in zip(chosen, before, after, strict=True):
        n = x.shape[axis]
        place = torch.arange(-low, n + high, device=x.device)
        if mode == "edge":
            place = place.clamp(0, n - 1)
        else:
            place = place.remainder(max(1, 2 * n - 2))
            place = torch.where(place < n, place, 2 * n - 2 - place)
        x = x.index_select(axis, place)
    return x


def suppression(
    node: Node,
    boxes: Tensor,
    scores: Tensor,
    most: Tensor | None = None,
    iou: Tensor | None = None,
    least: Tensor | None = None,
) -> Tensor:
    """Rows (image, class, box) of the boxes that remain after greedy suppression within each class."""
    limit = int(most) if most is not None else 0
    threshold = float(iou) if iou is not None else 0.0
    if node.get("center_point_box", 0):
        corners = cxcywh_to_xyxy(boxes)
    else:  # two opposite corners (y, x) in any order
        first, second = boxes[..., [1, 0]], boxes[..., [3, 2]]
        corners = torch.cat((torch.minimum(first, second), torch.maximum(first, second)), dim=-1)
    rows = [torch.zeros((0, 3), dtype=torch.int64, device=boxes.device)]
    for image in range(scores.shape[0]):
        for label in range(scores.shape[1]):
            score = scores[image, label]
            above = (score > float(least) if least is not None else torch.ones_like(score, dtype=torch.bool)).nonzero()
            place = above[:, 0]
            kept = place[nms(corners[image, place], score[place], torch.zeros_like(place), threshold, limit)]
            rows.append(torch.stack((torch.full_like(kept, image), torch.full_like(kept, label), kept), dim=1))
    return torch.cat(rows)


SHAPES: dict[str, Operator] = {
    "Concat": concat,
    "Constant": constant,
    "ConstantOfShape": constant_of_shape,
    "Expand": expand,
    "Flatten": flatten,
    "Gather": gather,
    "GatherElements": gather_elements,
    "GatherND": gather_nd,
    "Identity": plain(lambda x: x),
    "NonMaxSuppression": suppression,
    "NonZero": plain(lambda x: x.nonzero().T),
    "OneHot": one_hot,
    "Pad": pad,
    "Range": arange,
    "Reshape": reshape,
    "ScatterElements": scatter_elements,
    "ScatterND": scatter_nd,
    "Shape": shape,
    "Size": plain(lambda x: torch.tensor(x.numel(), device=x.device)),
    "Slice": slices,
    "Split": split,
    "Squeeze": squeeze,
    "Tile": tile,
    "Transpose": transpose,
    "Trilu": triangle,
    "Unsqueeze": unsqueeze,
}
"""Operator → function."""
