"""Develops DNGs with LibRaw for another process; the protocol is described in adaptiveisp/external/worker.py.

It imports nothing of adaptiveisp, as a program of a camera's maker would not.
"""

import io
import json
import sys

import rawpy


def develop(content: bytes, params: dict[str, float]):
    """The 8-bit sRGB picture, upright, (height, width, 3)."""
    with rawpy.imread(io.BytesIO(content)) as raw:
        balance = raw.camera_whitebalance
        if min(balance[:3]) <= 0:  # the file has no white balance of its own
            balance = raw.daylight_whitebalance
        red, green, blue, second = balance
        return raw.postprocess(
            user_wb=[red * params["red"], green, blue * params["blue"], second or green],
            bright=params["bright"],
            auto_bright_thr=params["burnt"],
            gamma=(params["power"], params["slope"]),
            fbdd_noise_reduction=rawpy.FBDDNoiseReductionMode(round(params["fbdd"])),
            median_filter_passes=round(params["median"]),
        )


def main() -> None:
    """Answers requests until the input is closed."""
    requests, answers = sys.stdin.buffer, sys.stdout.buffer
    while line := requests.readline():
        request = json.loads(line)
        content = requests.read(request["dng_bytes"])
        try:
            picture = develop(content, request["params"])
        except Exception as error:
            answer, pixels = {"error": f"{type(error).__name__}: {error}"}, b""
        else:
            answer, pixels = {"shape": picture.shape, "dtype": str(picture.dtype)}, picture.tobytes()
        answer["request"] = request["request"]
        answers.write(json.dumps(answer).encode() + b"\n" + pixels)
        answers.flush()


if __name__ == "__main__":
    main()
