"""A package in Roboflow's `inference_models` and in our AutoModel, on the same images, for every way to fit them.

    pip install torch==2.13.0 && pip install "inference-models[onnx-cpu]==0.39.6" torch==2.13.0
    pip install --no-deps .
    python experiments/checks/inference_models_parity.py ONNX_PACKAGE IMAGE... [--torch TORCH_PACKAGE]

With --torch the client runs that package, and our AutoModel the ONNX package of the same model. Needs an environment of
its own: inference-models caps ONNX Runtime below 1.23.

The client's PyTorch engine builds the network by segmentation_models_pytorch with its default `encoder_weights`, so it
downloads ImageNet weights and overwrites all of them with the package's. Here it is built without: the same network, no
download.
"""

import argparse
import functools
import json
import shutil
import sys
import tempfile
from pathlib import Path

import cv2
import numpy as np
import torch

from deeplab_jax import AutoModel

try:
    import torchvision  # noqa: F401
except RuntimeError:  # a torchvision built for CUDA beside a CPU-only torch lacks two operators that are not used here
    for name in [name for name in sys.modules if name.startswith("torchvision")]:
        del sys.modules[name]
    for operator in ("nms", "qnms"):
        torch.library.define(f"torchvision::{operator}", "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")

import inference_models  # pyright: ignore[reportMissingImports]
import segmentation_models_pytorch

MODES = ("stretch", "letterbox", "center-crop")
HEADER = """
| their engine | fitted by | image | size | equal pixels, threshold 0.5 | 0.0 | confidence off by at most |
|---|---|---|---|---|---|---|"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("package", type=Path)
    parser.add_argument("images", type=Path, nargs="+")
    parser.add_argument("--torch", type=Path)
    options = parser.parse_args()
    smp = segmentation_models_pytorch
    smp.DeepLabV3Plus = functools.partial(smp.DeepLabV3Plus, encoder_weights=None)  # pyright: ignore
    print(HEADER)
    for engine, package in {"onnx": options.package, "torch": options.torch}.items():
        for mode in MODES if package else ():
            with tempfile.TemporaryDirectory() as scratch:
                other = inference_models.AutoModel.from_pretrained(
                    str(refitted(package, mode, Path(scratch, "theirs"))),
                    device="cpu",
                    onnx_execution_providers=["CPUExecutionProvider"],
                )
                own = AutoModel.from_pretrained(refitted(options.package, mode, Path(scratch, "ours")), device="cpu")
                assert own.class_names == other.class_names
                for path in options.images:
                    print(f"| {engine} | {mode} | {compare(other, own, path)} |", flush=True)


def refitted(package: Path, mode: str, copy: Path) -> Path:
    """A copy of the package that fits images by `mode`."""
    shutil.copytree(package, copy)
    path = copy / "inference_config.json"
    config = json.loads(path.read_text())
    config["network_input"]["resize_mode"] = mode
    config["network_input"].pop("exact", None)  # what only our packages say, beside the shared keys
    path.write_text(json.dumps(config))
    return copy


def compare(other, own, path: Path) -> str:
    image = cv2.imread(str(path))
    assert image is not None, f"{path} is not an image"
    shares, worst = [], 0.0
    for threshold in (0.5, 0.0):
        expected, actual = other(image, confidence=threshold)[0], own(image, confidence=threshold)[0]
        confidence = expected.confidence.cpu().numpy()
        same = actual.segmentation_map == expected.segmentation_map.cpu().numpy()
        same &= (actual.confidence == 0) == (confidence == 0)
        shares.append(f"{same.mean():.4%}")
        worst = max(worst, np.abs(actual.confidence - confidence)[same].max())
    return f"{path.name} | {image.shape[1]}x{image.shape[0]} | {' | '.join(shares)} | {worst:.1e}"


if __name__ == "__main__":
    main()
