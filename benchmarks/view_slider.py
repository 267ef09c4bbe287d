"""How long the viewer takes when a slider moves: the time of one request, from JSON to the pixels, on loopback.

    python benchmarks/view_slider.py --size 416 --moves 20

For each pointwise stage of the pipeline that coco-adaptive chooses for a sample, its first parameter is moved, and the
image after all stages is asked for, as the page does. Prints median and 95th percentile in milliseconds, and the load
of the machine. What the browser adds (drawing) is not in it.
"""

import argparse
import http.client
import json
import os
import threading
import time

import numpy as np
import torch

from adaptiveisp.isp.pipeline import Pipeline, Stage
from adaptiveisp.serving.entries import Catalogue
from adaptiveisp.serving.no_detector import NAME
from adaptiveisp.serving.pages import all_pages
from adaptiveisp.serving.samples import add_samples
from adaptiveisp.serving.server import ViewServer
from adaptiveisp.serving.studio import Studio, StudioConfig
from adaptiveisp.serving.uploads import Uploads


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--size", type=int, default=416)
    parser.add_argument("--moves", type=int, default=20)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    catalogue = Catalogue()
    with Uploads(catalogue) as uploads:
        studio = Studio(catalogue, StudioConfig(size=options.size))
        add_samples(catalogue, studio.detector(next(iter(studio.detectors))), uploads.folder, 0)
        with ViewServer(all_pages(studio, uploads)) as server:
            threading.Thread(target=server.run, daemon=True).start()
            time.sleep(0.5)
            measure(server, catalogue.images.items()[0][0], options.moves)
            server.stop()
            time.sleep(0.5)


def measure(server: ViewServer, image: str, moves: int) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", server.port)
    headers = {"X-Adaptiveisp-Token": server.token, "Content-Type": "application/json"}

    def post(path: str, **content: object) -> bytes:
        sent = json.dumps({"image": image, "detector": NAME, **content})
        connection.request("POST", f"/api/image/{path}", sent, headers)
        response = connection.getresponse()
        body = response.read()
        assert response.status == 200, body
        return body

    pipeline = Pipeline.from_json(json.loads(post("choose", policy="coco-adaptive"))["pipeline"])
    print(f"load {os.getloadavg()[0]:.1f} of {os.cpu_count()} cores, {torch.get_num_threads()} thread")
    for place, (stage, module) in enumerate(zip(pipeline.stages, pipeline.modules, strict=True)):
        if not module.params or not module.pointwise:
            continue
        param = module.params[0]
        times = []
        for move in range(moves):
            value = param.low + (param.high - param.low) * (0.4 + 0.2 * move / moves)
            stages = list(pipeline.stages)
            stages[place] = Stage(stage.module, {**stage.params, param.name: value})
            began = time.perf_counter()
            post("picture", pipeline=pipeline.with_stages(stages).to_json(), stage=-1, lift=True, pixels=True)
            times.append(1e3 * (time.perf_counter() - began))
        after = " ".join(later.name for later in pipeline.modules[place + 1 :]) or "nothing"
        middle, slow = np.median(times), np.percentile(times, 95)
        print(f"{place + 1:2} {module.name:14} {middle:6.1f} {slow:6.1f} ms; after it: {after}")


if __name__ == "__main__":
    main()
