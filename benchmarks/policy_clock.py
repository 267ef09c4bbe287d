"""Milliseconds of whole policies (start, observation, network and modules) beside those of an earlier commit.

    python benchmarks/policy_clock.py --data DEV.json --images DIR [--limit 64] [--light mixed] [--rounds 3]
        --policy coco-adaptive coco-fast [--old TREE --old-policy coco-adaptive]

Makes a raw of each photo, develops it to 416 pixels, and times `policy.process` on each image with one thread, without
a detector. The policies run in processes of their own, which keep freed memory as the command line does, in turn,
ROUNDS times, and the median over rounds counts for each image. TREE is a checkout of an earlier commit, such as
dff75bc, with its kernels compiled; its own code runs its policy. The table has the mean over images, since policies
differ from image to image, and its share of the first policy's and of that of the earlier commit.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve().parent.parent
SIZE = 416
CHILD = """
import json, statistics, sys, time
import numpy as np, torch
torch.set_num_threads(1)
try:
    from adaptiveisp.policies.registry import load_policy
except ImportError:  # as it was called before
    from adaptiveisp.zoo import load_policy
try:
    from adaptiveisp.utils.allocator import keep_freed_memory
except ImportError:  # where it was before
    from adaptiveisp.memory import keep_freed_memory
keep_freed_memory()
policy, content = load_policy(sys.argv[1]), np.load(sys.argv[2])
images = [torch.from_numpy(content[name]) for name in content.files]
found = []
with torch.inference_mode():
    for image in images[:5]:
        policy.process(image)
    for image in images:
        taken = []
        for _ in range(5):
            begin = time.perf_counter()
            policy.process(image)
            taken.append(1e3 * (time.perf_counter() - begin))
        found.append(statistics.median(taken))
print(json.dumps(found))
"""


def make_images(data: Path, images: Path, light: str, limit: int, target: Path) -> int:
    """Writes developed images, (1, 3, height, width) linear RGB with a longer side of `SIZE`; returns their number."""
    from adaptiveisp import AdaptiveISP, SynthesisConfig, open_dataset, synthesize
    from tests.support.fake_detector import RedDetector

    isp = AdaptiveISP("auto-exposure", RedDetector(), size=SIZE)
    with tempfile.TemporaryDirectory() as place:
        synthesize(SynthesisConfig(light, format="dng"), data, images, Path(place) / "raws", limit=limit)
        dataset = open_dataset(Path(place) / "raws" / light)
        developed = [isp.develop(dataset.read(sample)).developed.small.numpy() for sample in dataset.samples]
    np.savez(target, *developed)
    return len(developed)


def timed(tree: Path, policy: str, content: Path) -> list[float]:
    """Milliseconds of each image, by the code of a tree."""
    environment = {**os.environ, "PYTHONPATH": str(tree / "src"), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", CHILD, policy, str(content)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=tree)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        sys.exit(f"{tree}: policy {policy} does not run there: {last}")
    found: list[float] = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="COCO JSON of photos")
    parser.add_argument("--images", type=Path, required=True, help="their folder")
    parser.add_argument("--limit", type=int, default=64, help="photos")
    parser.add_argument("--light", default="mixed")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--policy", nargs="+", default=["coco-adaptive", "coco-fast"])
    parser.add_argument("--old", type=Path, help="checkout of an earlier commit, with its kernels compiled")
    parser.add_argument("--old-policy", default="coco-adaptive", help="its policy")
    given = parser.parse_args()
    if given.old and not (given.old / "src" / "adaptiveisp").is_dir():
        parser.error(f"{given.old}: no checkout of this project; make one with `git worktree add DIR COMMIT`")
    if given.old and not any((given.old / "src").rglob("*.so")):  # it would be timed without kernels, without a word
        parser.error(f"{given.old}: has no compiled kernels; run `python setup.py build_ext --inplace` there")
    cases = [
        (Path(name).stem, HERE, str(Path(name).resolve() if Path(name).exists() else name)) for name in given.policy
    ]
    if given.old:
        cases.append((f"{given.old_policy}, earlier code", given.old.resolve(), given.old_policy))
    with tempfile.TemporaryDirectory() as place:
        content = Path(place) / "images.npz"
        count = make_images(given.data, given.images, given.light, given.limit, content)
        rounds = [[timed(tree, policy, content) for _, tree, policy in cases] for _ in range(given.rounds)]
    means = [
        statistics.fmean(statistics.median(ones) for ones in zip(*[one[i] for one in rounds], strict=True))
        for i in range(len(cases))
    ]
    against = [0, *([len(cases) - 1] if given.old else [])]
    print(f"{count} images of {given.light} light, {given.rounds} rounds, one thread")
    print("| policy | ms, mean of images | " + " | ".join(f"share of {cases[i][0]}" for i in against) + " |")
    print("|---|---:|" + "---:|" * len(against))
    for (name, _, _), mean in zip(cases, means, strict=True):
        print(f"| {name} | {mean:.2f} | " + " | ".join(f"{mean / means[i]:.2f}" for i in against) + " |")


if __name__ == "__main__":
    sys.path[:0] = [str(HERE), str(HERE / "src")]
    main()
