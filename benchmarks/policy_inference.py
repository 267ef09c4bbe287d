"""What the NumPy and C version of the sequence policy saves over the network in PyTorch, with which it shares weights.

    python benchmarks/policy_inference.py [--size 416] [--repeats 60]

One thread, no detector, medians of interleaved calls: the policy with its modules on an image, and, of that, the choice
alone (encoder, sequence, parameters) by the inference version and by PyTorch. The last column is the difference as a
share of policy and modules.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import torch

from adaptiveisp.policies.registry import load_policy
from adaptiveisp.policies.sequence.networks import observe
from adaptiveisp.policies.sequence.policy import SequencePolicy


def medians(calls: dict[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Milliseconds of each call, taken in turn."""
    taken: dict[str, list[float]] = {name: [] for name in calls}
    for number in range(repeats + 3):
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            if number >= 3:
                taken[name].append((time.perf_counter() - start) * 1e3)
    return {name: statistics.median(values) for name, values in taken.items()}


@torch.inference_mode()
def measure(name: str, size: int, repeats: int) -> None:
    """Prints the times of one policy."""
    policy = load_policy(name)
    assert isinstance(policy, SequencePolicy)
    image = 0.05 * torch.rand(1, 3, size * 3 // 4, size, generator=torch.Generator().manual_seed(0))
    observation = observe(image, policy.header.start, policy.header.module_set)
    inference, network = policy.inference, policy.network

    def numpy_and_c() -> None:
        (embedding,) = inference.embed(observation)
        inference.stages(embedding, inference.sequence(embedding))

    def pytorch() -> None:
        embedding = network.embed(observation)
        network.sample(embedding, None)
        {module: values.tolist() for module, values in network.params(network.logits(embedding)).items()}

    calls = {"whole": lambda: policy.process(image), "numpy and c": numpy_and_c, "pytorch": pytorch}
    found = medians(calls, repeats)
    saved = found["pytorch"] - found["numpy and c"]
    print(
        f"{name}: policy and modules {found['whole']:.2f} ms; choice by NumPy and C {found['numpy and c']:.2f} ms, "
        f"by PyTorch {found['pytorch']:.2f} ms; saves {100 * saved / found['whole']:.1f} %"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=416)
    parser.add_argument("--repeats", type=int, default=60)
    options = parser.parse_args()
    torch.set_num_threads(1)
    for name in ("coco-adaptive", "coco-fast"):
        measure(name, options.size, options.repeats)


if __name__ == "__main__":
    main()
