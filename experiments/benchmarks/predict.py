"""`deeplab predict` beside the model alone: one photo of 24 megapixels, and many of 1280x720.

    python experiments/benchmarks/predict.py [PACKAGE] [--images FOLDER] [--encoder mobilenet_v2] [--photos 200]

By default with an ONNX package of smp's DeepLabV3+ of that encoder, output stride 16, 21 classes, random weights, whose
maps are mostly borders; and with drawn photos, of which trained weights know nothing. With both given, the maps are as
long-winded as people's. Seconds are those of calls that take turns in one process; the memory is that of another.
"""

import argparse
import platform
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import onnxruntime

from deeplab_jax import AutoModel
from deeplab_jax.image.read import list_images, read_image
from deeplab_jax.inference.auto_model import DEFAULT_CONFIDENCE, SegmentationModel
from deeplab_jax.inference.predict import load, predict

LARGE, SMALL = (4000, 6000), (720, 1280)


def make_package(folder: Path, encoder: str) -> Path:
    """An ONNX package of random weights."""
    from flax import nnx

    from converters.export.onnx_graph.onnx_package import export
    from deeplab_jax.classes import Classes, default_palette
    from deeplab_jax.config import PreprocessConfig
    from deeplab_jax.models import build_model, presets
    from deeplab_jax.package import jax_weights

    model = build_model(presets.smp_deeplabv3plus(encoder, 21), rngs=nnx.Rngs(0))
    names = ("background", *(f"class_{number}" for number in range(1, 21)))
    jax_weights.save(folder / "jax", model, Classes(names, default_palette(21)), PreprocessConfig())
    export(folder / "jax", folder / "onnx")
    return folder / "onnx"


def make_photo(path: Path, size: tuple[int, int], seed: int, sources: list[Path]) -> Path:
    """One of the source images in that size, or smooth shapes under the noise of a camera, as a JPEG."""
    height, width = size
    if sources:
        image = cv2.resize(read_image(sources[seed % len(sources)]), (width, height), interpolation=cv2.INTER_CUBIC)
        cv2.imwrite(str(path), image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 92])
        return path
    random = np.random.default_rng(seed)
    shapes = cv2.resize(random.integers(0, 256, (24, 36, 3), np.uint8), (width, height), interpolation=cv2.INTER_CUBIC)
    noise = random.normal(0, 8, (height // 2, width // 2, 1)).astype(np.float32)
    noisy = shapes + cv2.resize(noise, (width, height), interpolation=cv2.INTER_NEAREST)[..., None]
    cv2.imwrite(str(path), np.clip(noisy, 0, 255).astype(np.uint8), [cv2.IMWRITE_JPEG_QUALITY, 92])
    return path


def by_turns(calls: dict[str, Callable[[], object]], turns: int) -> dict[str, tuple[float, float]]:
    """The least and the median seconds of every call."""
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(turns + 1):
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            if turn:  # the first warms up
                seconds[name].append(time.perf_counter() - start)
    return {name: (min(actual), statistics.median(actual)) for name, actual in seconds.items()}


def rows(what: str, seconds: dict[str, tuple[float, float]], count: int, base: str) -> None:
    for name, (least, median) in seconds.items():
        ratios = f"{least / seconds[base][0]:.2f} | {median / seconds[base][1]:.2f}"
        print(f"| {what}: {name} | {least / count * 1e3:.0f} | {median / count * 1e3:.0f} | {ratios} |")


def peak(package: Path, photos: list[Path], out: Path, confidence: float) -> int:
    """MB that `deeplab predict` takes at most, in a process of its own. On Linux."""
    # Not getrusage, which begins with the memory of the process that starts this one.
    program = "from deeplab_jax.cli import main; main(); print(open('/proc/self/status').read())"
    words = ["predict", package, *photos, "--out", out, "--confidence", confidence]
    done = subprocess.run([sys.executable, "-c", program, *map(str, words)], check=True, capture_output=True, text=True)
    (kilobytes,) = re.findall(r"VmHWM:\s+(\d+) kB", done.stdout)
    return int(kilobytes) // 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("package", nargs="?", type=Path)
    parser.add_argument("--images", type=Path, help="a folder, whose images are scaled to the photos")
    parser.add_argument("--encoder", default="mobilenet_v2")
    parser.add_argument("--photos", type=int, default=200)
    parser.add_argument("--turns", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder, out = Path(scratch), Path(scratch, "out")
        package = options.package or make_package(folder, options.encoder)
        confidence = DEFAULT_CONFIDENCE if options.package else 0.0  # random weights are sure of nothing
        sources = list_images(options.images) if options.images else []
        large = make_photo(folder / "large.jpg", LARGE, 0, sources)
        small = [make_photo(folder / f"{number}.jpg", SMALL, number, sources) for number in range(options.photos)]
        model = AutoModel.from_pretrained(package)
        for_many = load(package, None, len(small))
        image, images = read_image(large), [read_image(path) for path in small]
        inputs = model._network_input(images[:1], "rgb")[0]

        def alone(image: np.ndarray) -> None:
            model(image, confidence=confidence, input_color_format="rgb")

        def predicted(model: SegmentationModel, photos: list[Path]) -> None:
            shutil.rmtree(out, ignore_errors=True)
            assert not predict(model, photos, out, confidence, lambda *_: None)

        one: dict[str, Callable[[], object]] = {
            "model and map": lambda: alone(image),
            "predict": lambda: predicted(model, [large]),
        }
        many = {
            "network": lambda: [model._backend(inputs) for _ in small],
            "model and map": lambda: [alone(image) for image in images],
            "predict": lambda: predicted(for_many, small),
        }
        print(f"{platform.machine()}, Python {platform.python_version()}, OpenCV {cv2.__version__}, ", end="")
        print(f"onnxruntime {onnxruntime.__version__}, {options.turns} turns, of the large one {3 * options.turns}")
        print("| what | least ms | median ms | ratio of least | of medians |\n|---|---|---|---|---|")
        rows("6000x4000", by_turns(one, 3 * options.turns), 1, "model and map")
        rows(f"{len(small)} of 1280x720", by_turns(many, options.turns), len(small), "network")
        megabytes = (peak(package, photos, out, confidence) for photos in ([large], [large] * 4, small))
        print("peak memory of `deeplab predict`: ", end="")
        print("{} MB for the large photo, {} for four, {} for the small ones".format(*megabytes))


if __name__ == "__main__":
    main()
