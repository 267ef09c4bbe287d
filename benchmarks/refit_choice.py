"""Policies for several prices of a millisecond, from the rewards that a run of listed pipelines remembers.

A run with `candidates: listed` and `replays` keeps, for each training image, the reward of every listed pipeline
without its cost. The choice for another price of run time (`runtime_weight`) can therefore be fitted anew in seconds,
without rendering an image. The parameters of the modules stay those of the run.

    python benchmarks/refit_choice.py RUN --runtime-weight 0.03 0.1 0.3 --out DIR

It prints, for each price, the share of the remembered images for which each pipeline is the likeliest, and the mean
cost, and writes DIR/PRICE.safetensors, which `eval` takes.
"""

import argparse
from pathlib import Path

import torch

from adaptiveisp.policies.checkpoint import SEQUENCE, save_policy
from adaptiveisp.training.config import CONFIG, read_config, resolve
from adaptiveisp.training.gradients import optimiser_step
from adaptiveisp.training.methods.sequence.learner import SequenceLearner
from adaptiveisp.training.methods.sequence.sampling import listed_actions, recalled_images
from adaptiveisp.training.methods.sequence.weights import update_average
from adaptiveisp.training.run_files import LATEST


def learner_of(run: Path) -> SequenceLearner:
    """The learner of a run, in the state of its last checkpoint; it cannot render images."""
    _, settings = resolve(*read_config(run / CONFIG), str(run / CONFIG))
    learner = SequenceLearner(settings, None, None, 1, 0)  # type: ignore[arg-type]
    learner.load_state_dict(torch.load(run / LATEST, weights_only=True)["learner"])
    return learner


def refit(run: Path, price: float, updates: int) -> tuple[SequenceLearner, torch.Tensor, float]:
    """The learner with its choice refitted, the share of images for each pipeline, and the mean cost in ms.

    Args:
        run: folder of the run.
        price: what a millisecond costs, in units of 100·D.
        updates: of the sequence head, each on 64 remembered images.
    """
    learner = learner_of(run)
    config, listed = learner.config, learner.listed
    if listed.seen is None:
        raise SystemExit(f"{run}: remembers no rewards; train it with candidates: listed and replays above 0")
    embedding, worth = listed.seen
    actions = listed_actions(config)
    costs = learner.costs[actions].sum(dim=1)
    reward = worth - price * costs
    listed.square = float((reward - reward.mean(dim=1, keepdim=True)).square().mean())
    parts = {name: part for name, part in learner.parts.items() if name != "parameters"}
    for update in range(updates):
        found, log_prob = recalled_images(listed, learner.network, config, 1.0, learner.generator)
        optimiser_step(
            parts,
            learner.optimiser,
            listed.fit(found - price * costs, log_prob),
            0.1 ** (update / updates),
            config.gradient_norm,
        )
        update_average(learner.averaged, learner.network, config, update)
    with torch.no_grad():
        rows = actions.repeat(len(embedding), 1)
        log_prob = learner.averaged.log_probs(embedding.repeat_interleave(len(actions), dim=0), rows, 1.0)[0]
    likeliest = log_prob.view(-1, len(actions)).argmax(dim=1)
    shares = torch.bincount(likeliest, minlength=len(actions)) / len(likeliest)
    return learner, shares, float(costs[likeliest].mean())


def main() -> None:
    """Reads the command line, writes the policies and prints the shares."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--runtime-weight", type=float, nargs="+", required=True, metavar="W")
    parser.add_argument("--updates", type=int, default=2000)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    arguments.out.mkdir(parents=True, exist_ok=True)
    for price in arguments.runtime_weight:
        learner, shares, cost = refit(arguments.run, price, arguments.updates)
        save_policy(arguments.out / f"{price:g}.safetensors", learner.header, {SEQUENCE: learner.averaged})
        parts = (
            f"{share:.1%} {' '.join(names)}"
            for share, names in zip(shares.tolist(), learner.config.pipelines, strict=True)
        )
        print(f"{price:g}: {cost:.2f} ms of modules;", "; ".join(parts), flush=True)


if __name__ == "__main__":
    main()
