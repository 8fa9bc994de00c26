"""The same ONNX package in Roboflow's `inference_models` and in our AutoModel, on the same pictures.

    pip install torch==2.13.0 && pip install "inference-models[onnx-cpu]==0.39.6" torch==2.13.0
    pip install --no-deps .
    python experiments/inference_models_parity.py ONNX_PACKAGE PICTURE...

Needs an environment of its own: inference-models caps ONNX Runtime below 1.23.
"""

import sys

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

package, *pictures = sys.argv[1:]
theirs = inference_models.AutoModel.from_pretrained(
    package, device="cpu", onnx_execution_providers=["CPUExecutionProvider"]
)
ours = AutoModel.from_pretrained(package, device="cpu")
assert ours.class_names == theirs.class_names

print("| picture | size | confidence threshold | equal pixels | largest difference of confidence where equal |")
print("|---|---|---|---|---|")
for path in pictures:
    image = cv2.imread(path)
    assert image is not None, f"{path} is not a picture"
    for threshold in (0.5, 0.0):
        expected, found = theirs(image, confidence=threshold)[0], ours(image, confidence=threshold)[0]
        confidence = expected.confidence.cpu().numpy()
        same = (found.segmentation_map == expected.segmentation_map.cpu().numpy()) & (
            (found.confidence == 0) == (confidence == 0)
        )
        difference = np.abs(found.confidence - confidence)[same].max()
        size = f"{image.shape[1]}x{image.shape[0]}"
        print(f"| {path.split('/')[-1]} | {size} | {threshold} | {same.mean():.6%} | {difference:.1e} |")
