"""Do pipelines that differ between images pay? Each image gets the modules that a policy chose for another image.

A policy is scored beside itself with the chosen sequences of modules permuted among the images of each data set. Every
image keeps its own parameters, which the policy sets for all of its modules. If the choice depends on the image for a
reason, the permuted policy is worse.

    python benchmarks/permuted_sets.py POLICY --data A.json B.json --images A B --light mixed --draws 3 2 --out report

It scores `POLICY` twice (the first pass records what it chooses), prints how often each set of modules was chosen and
the paired difference, and writes the report of `adaptiveisp eval`.
"""

import argparse
import hashlib
import random
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from adaptiveisp import EvalConfig, evaluate
from adaptiveisp.data.synthetic import SynthesisConfig
from adaptiveisp.evaluation.api import prepare
from adaptiveisp.evaluation.report import Report
from adaptiveisp.isp.pipeline import Pipeline
from adaptiveisp.policies.base import Policy
from adaptiveisp.policies.registry import load_policy
from adaptiveisp.types import Image

RARE = 0.1
"""Sets of modules with a smaller share of the images are not counted as sets of their own in the printed summary."""


def key(image: Image) -> bytes:
    """What identifies a developed image, whenever and how often it is planned."""
    return hashlib.blake2b(image.numpy().tobytes(), digest_size=16).digest()


class Recorded(Policy):
    """A policy whose chosen modules are recorded for each image, without those of the preprocessing."""

    def __init__(self, policy: Policy):
        self.policy, self.name = policy, policy.name
        self.chosen: dict[bytes, tuple[str, ...]] = {}

    def plan(self, image: Image) -> list[Pipeline]:
        plans = self.policy.plan(image)
        for one, plan, prefix in zip(image, plans, self.policy.plan_with(image, []), strict=True):
            self.chosen[key(one)] = tuple(stage.module for stage in plan.stages[len(prefix.stages) :])
        return plans


class Permuted(Policy):
    """A policy with given modules for each image."""

    def __init__(self, policy: Policy, modules: Mapping[bytes, tuple[str, ...]]):
        self.policy, self.name, self.modules = policy, f"{policy.name}, modules of another image", modules

    def plan(self, image: Image) -> list[Pipeline]:
        return [plan for one in image for plan in self.policy.plan_with(one[None], self.modules[key(one)])]


def permuted(chosen: Mapping[bytes, tuple[str, ...]], seed: int) -> dict[bytes, tuple[str, ...]]:
    """The choices, shuffled so that every image gets those of another one."""
    order = list(chosen)
    random.Random(seed).shuffle(order)
    return {one: chosen[other] for one, other in zip(order, order[1:] + order[:1], strict=True)}


def compared(config: EvalConfig, policy: Policy, seed: int) -> tuple[Report, Counter[frozenset[str]]]:
    """The report of the policy and its permuted form, and how often each set of modules was chosen.

    Args:
        config: data and detector; its policies are replaced.
        policy: the policy.
        seed: of the permutation.
    """
    modules: dict[bytes, tuple[str, ...]] = {}
    counts: Counter[frozenset[str]] = Counter()
    for dataset in prepare(config).datasets.values():  # permuted within each data set
        recorded = Recorded(policy)
        evaluate(replace(config, data=dataset, images=None, synthesis=None, policies=(recorded,)))
        modules |= permuted(recorded.chosen, seed)
        counts.update(map(frozenset, recorded.chosen.values()))
    return evaluate(replace(config, policies=(policy, Permuted(policy, modules)))), counts


def main() -> None:
    """Reads the command line and prints the comparison."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("policy", help="a name, policy file or run folder")
    parser.add_argument("--data", nargs="+", required=True)
    parser.add_argument("--images", nargs="+")
    parser.add_argument("--light", default="mixed")
    parser.add_argument("--noise", default="sensor")
    parser.add_argument("--draws", nargs="+", type=int, default=[2])
    parser.add_argument("--detector", default="yolov3-tiny")
    parser.add_argument("--size", type=int, default=416)
    parser.add_argument("--limit", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    draws = arguments.draws * len(arguments.data) if len(arguments.draws) == 1 else arguments.draws
    config = EvalConfig(
        data=arguments.data,
        policies=(arguments.policy,),
        images=arguments.images,
        synthesis=[SynthesisConfig(arguments.light, n, noise=arguments.noise, seed=arguments.seed) for n in draws],
        detectors=(arguments.detector,),
        size=arguments.size,
        limit=arguments.limit,
        seed=arguments.seed,
    )
    report, counts = compared(config, load_policy(arguments.policy), arguments.seed)
    total = sum(counts.values())
    print(f"{len(counts)} sets of modules, {sum(n >= RARE * total for n in counts.values())} with {RARE:.0%} or more")
    for modules, n in counts.most_common():
        print(f"{n / total:7.1%}  {', '.join(sorted(modules)) or 'none'}")
    print(report.table())
    if arguments.out:
        report.save(arguments.out)


if __name__ == "__main__":
    main()
