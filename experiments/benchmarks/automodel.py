"""Our AutoModel beside Roboflow's `inference_models` on the same ONNX package and the same 1280x720 image.

    pip install torch==2.13.0 && pip install "inference-models[onnx-cpu]==0.39.6" torch==2.13.0
    pip install --no-deps .
    python experiments/benchmarks/automodel.py ONNX_PACKAGE IMAGE

Both run in one process by turns, with the same ONNX Runtime and its default threads; the session alone takes turns with
them. Then both start by turns in processes of their own, from nothing to the first result.
"""

import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnxruntime
import torch

TURNS, STARTS = 15, 7
SIZE = 1280, 720

# A torchvision built for CUDA beside a CPU-only torch lacks two operators that are not used here.
DECLARE = """
import torch
for operator in ("nms", "qnms"):
    torch.library.define(f"torchvision::{operator}", "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
"""
LOAD_THEIRS = """
from inference_models import AutoModel
theirs = AutoModel.from_pretrained(package, device="cpu", onnx_execution_providers=["CPUExecutionProvider"])
"""
LOAD_OURS = """
from deeplab_jax import AutoModel
ours = AutoModel.from_pretrained(package, device="cpu")
"""
READ = "import sys, cv2; package, image = sys.argv[1:]; image = cv2.imread(image)\n"


def operators_are_missing() -> bool:
    return subprocess.run([sys.executable, "-c", "import torchvision"], capture_output=True).returncode != 0


def by_turns(calls: dict[str, Callable[[], object]], turns: int) -> dict[str, list[float]]:
    """Seconds of every call."""
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(turns + 1):
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            if turn:  # the first warms up
                seconds[name].append(time.perf_counter() - start)
    return seconds


def row(what: str, actual: dict[str, list[float]]) -> str:
    own, other = (np.array(actual[name]) for name in ("ours", "theirs"))
    single = own / other
    median = statistics.median(own) / statistics.median(other)
    return f"| {what} | {median:.2f} | {single.min():.2f} to {single.max():.2f} |"


def main() -> None:
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    package, source = sys.argv[1:]
    image = cv2.imread(source)
    assert image is not None, f"{source} is no image"
    image = cv2.resize(image, SIZE, interpolation=cv2.INTER_AREA)
    declare = DECLARE if operators_are_missing() else ""
    models: dict[str, Any] = {"package": package}
    exec(declare + LOAD_THEIRS + LOAD_OURS, models)
    other, own = models["theirs"], models["ours"]

    expected, actual = other(image)[0], own(image)[0]
    same = actual.segmentation_map == expected.segmentation_map.numpy()
    difference = np.abs(actual.confidence - expected.confidence.numpy())[same].max()
    session = onnxruntime.InferenceSession(Path(package) / "weights.onnx", providers=["CPUExecutionProvider"])
    given = session.get_inputs()[0]
    sides = [side if isinstance(side, int) else 1 for side in given.shape]
    network = {given.name: np.random.default_rng(0).normal(size=sides).astype(np.float32)}
    calls = {
        "theirs": lambda: other(image),
        "ours": lambda: own(image),
        "network": lambda: session.run(None, network),
    }
    seconds = by_turns(calls, TURNS)
    median = {name: statistics.median(actual) for name, actual in seconds.items()}

    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "image.png")
        cv2.imwrite(path, image)
        programs = {"theirs": declare + READ + LOAD_THEIRS + "theirs(image)", "ours": READ + LOAD_OURS + "ours(image)"}
        commands = {name: [sys.executable, "-c", program, package, path] for name, program in programs.items()}
        starts = by_turns(
            {name: lambda c=c: subprocess.run(c, check=True, capture_output=True) for name, c in commands.items()},
            STARTS,
        )

    print(f"onnxruntime {onnxruntime.__version__}, torch {torch.__version__}, {torch.get_num_threads()} threads")
    print(f"equal pixels {same.mean():.4%}, largest difference of confidence where equal {difference:.1e}")
    shares = ", ".join(f"{name} {value / median['theirs']:.2f}" for name, value in median.items())
    print(f"of their time: {shares}")
    print("| what | ratio of medians | of single turns |\n|---|---|---|")
    print(row(f"an image of {SIZE[0]}x{SIZE[1]}, {TURNS} turns", seconds))
    print(row(f"from process start to the first result, {STARTS} turns", starts))


if __name__ == "__main__":
    main()
