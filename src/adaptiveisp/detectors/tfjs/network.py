"""A graph model of TensorFlow.js as a frozen network of PyTorch."""

from collections.abc import Sequence

from torch import Tensor, nn

from adaptiveisp.detectors.tfjs.graph_file import Array, Graph, Node, owner_of
from adaptiveisp.detectors.tfjs.operators import RESIZE, Arithmetic, Convolution, build, folded
from adaptiveisp.errors import WeightsError

CHANNELS = 3
LAYOUT_ONLY = ("Identity", "Transpose", "Reshape")
"""Operators that move values without changing them."""


class GraphNetwork(nn.Module):
    """The part of a graph that some outputs need; gradients reach the image only.

    The sides of the image need not be those that the graph was made for.
    """

    def __init__(self, graph: Graph, outputs: Sequence[str]) -> None:
        """Translates the nodes.

        Args:
            graph: the graph; it has one input, an image with three channels, which come first or last.
            outputs: names of the nodes whose values are wanted.

        Raises:
            WeightsError: an operator is not translated, or the graph has no such output or no such input.
        """
        super().__init__()
        if missing := ", ".join(name for name in outputs if owner_of(name) not in graph.nodes):
            raise WeightsError(f"{graph.origin}: has no output {missing}; give the file of the network it names")
        self.image_name, self.channels_first, size = _image_of(graph)
        self.outputs = tuple(_canonical(name) for name in outputs)
        self.steps = nn.ModuleList()
        self._plan: list[tuple[tuple[str, ...], str]] = []
        self._translate(graph, size)
        last_use = {name: number for number, (inputs, _) in enumerate(self._plan) for name in inputs}
        self._done = [
            tuple(name for name in set(inputs) if last_use[name] == number and name not in self.outputs)
            for number, (inputs, _) in enumerate(self._plan)
        ]
        self.requires_grad_(False)
        self.eval()

    def forward(self, image: Tensor) -> list[Tensor]:
        """The wanted outputs, in the graph's order of axes.

        Args:
            image: (batch, 3, height, width), with the values and the order of channels that the network wants.
        """
        given = image if self.channels_first else image.permute(0, 2, 3, 1)
        values = {_canonical(self.image_name): given, "": image}
        for step, (inputs, name), done in zip(self.steps, self._plan, self._done, strict=True):
            result = step(*(values[one] for one in inputs))
            parts = (result,) if isinstance(result, Tensor) else result
            for number, part in enumerate(parts):
                values[f"{name}:{number}"] = part
            for one in done:
                values.pop(one, None)
        return [values[name] for name in self.outputs]

    def _translate(self, graph: Graph, size: tuple[int, int]) -> None:
        """Adds the steps for the nodes that the outputs need, in an order in which each follows its inputs."""
        needed = _needed(graph, self.outputs)
        uses: dict[str, int] = {}
        for node in needed:
            for given in node.inputs:
                uses[_canonical(given)] = uses.get(_canonical(given), 0) + 1
        constants: dict[str, Array] = dict(graph.constants)
        made: dict[str, tuple[Convolution, int]] = {}
        for node in needed:
            values = [constants.get(owner_of(given)) for given in node.inputs]
            if node.name in constants or node.name == self.image_name:
                continue
            if (value := folded(node, values)) is not None:
                constants[node.name] = value
                continue
            step = build(graph, node, values, size)
            inputs = tuple(_canonical(g) for g, value in zip(node.inputs, values, strict=True) if value is None)
            source = made.get(inputs[0]) if len(inputs) == 1 and uses[inputs[0]] == 1 else None
            if source and node.op in ("Add", "AddV2") and isinstance(step, Arithmetic):
                convolution, place = source
                bias = next(value for value in values if value is not None)
                if bias.shape == (convolution.conv.out_channels,):  # a sum that belongs to the convolution
                    convolution.add_bias(bias)
                    self._plan[place] = (self._plan[place][0], node.name)
                    continue
            if node.op == RESIZE:
                inputs = (*inputs, "")
            if isinstance(step, Convolution) and step.conv.bias is None and step.activation is None:
                made[f"{node.name}:0"] = (step, len(self._plan))
            self.steps.append(step)
            self._plan.append((inputs, node.name))


def before_sigmoid(graph: Graph, output: str) -> Graph:
    """The graph with the last sigmoid before an output left out, so that the output gives logits.

    Raises:
        WeightsError: there is no sigmoid, or something other than a change of layout follows it.
    """
    nodes = dict(graph.nodes)
    follower = nodes.get(output)
    while follower is not None and follower.op in LAYOUT_ONLY:
        given = nodes[owner_of(follower.inputs[0])]
        if given.op == "Sigmoid":
            nodes[follower.name] = follower._replace(inputs=(given.inputs[0], *follower.inputs[1:]))
            return graph._replace(nodes=nodes)
        follower = given
    raise WeightsError(f"{graph.origin}: its output {output} is not a sigmoid; give the file of the network it names")


def _canonical(given: str) -> str:
    """`name:0` for `name`, the same for `name:1`."""
    return given if ":" in given else f"{given}:0"


def _image_of(graph: Graph) -> tuple[str, bool, tuple[int, int]]:
    """The name of the graph's input, whether its channels come first, and the (height, width) it was made for."""
    found = [node for node in graph.nodes.values() if node.op == "Placeholder"]
    shape: tuple[int, ...] = found[0].attributes.get("shape", ()) if len(found) == 1 else ()
    if len(shape) == 4 and min(shape[1:]) > 0 and CHANNELS in (shape[1], shape[3]):
        first = shape[1] == CHANNELS
        return found[0].name, first, (shape[2], shape[3]) if first else (shape[1], shape[2])
    raise WeightsError(f"{graph.origin}: has no single input for an image with {CHANNELS} channels and a size")


def _needed(graph: Graph, outputs: Sequence[str]) -> list[Node]:
    """The nodes that the outputs depend on, each after its inputs."""
    wanted: set[str] = set()
    waiting = [owner_of(name) for name in outputs]
    while waiting:
        name = waiting.pop()
        if name not in wanted:
            wanted.add(name)
            waiting += [owner_of(given) for given in graph.nodes[name].inputs]
    return [node for name, node in graph.nodes.items() if name in wanted]
