"""Thousands of hostile packages and images to AutoModel: each must give a result or an InputError, and soon.

    pip install -e '.[onnx]' torch
    python experiments/checks/hostile_inputs.py [--count 5000] [--seed 0] [--workers 2]
    python experiments/checks/hostile_inputs.py --seed 0 --only 1234        # one case again, in this process

A case is drawn from the seed and its number. It runs in a worker process; a crash, another exception, more than 2 GiB
of memory above what the worker had before, or more than a minute is a fault. Then 8 threads call one model 200 times
each, and must get what one thread gets.
"""

import argparse
import collections
import json
import queue
import random
import re
import resource
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from hostile_cases import SPOILERS, odd_arguments, odd_image, spoiled_package

from deeplab_jax import AutoModel
from deeplab_jax.errors import InputError

LIMIT = 2 << 30  # bytes above the baseline
SECONDS = 60
CASES_A_WORKER = 250  # then a fresh one: JAX keeps what it compiles
WEIGHTS = {"onnx bytes": 5, "onnx spoiled graph": 8, "onnx crafted graph": 8, "onnx json": 5, "onnx model json": 2}
WEIGHTS |= {"onnx class names": 2, "jax weights": 3, "jax architecture": 3, "jax json": 1, "files": 3, "names": 1}
WEIGHTS |= {"call onnx": 12, "call jax": 4}
NAMES = "", ".", "..", "/", "\0", "a" * 5000, "absent", "../../etc", "a/b/c", "https://x/y", "~", "é", "\ud800", "a\nb"
MAPS_DIFFER = "a result does not fit its image"


def run_case(seed: int, number: int, packages: dict[str, Path], models: dict[str, Any]) -> tuple[str, str, str]:
    """Kind, what was done and outcome."""
    chance = random.Random(f"{seed} {number}")
    kind = chance.choices(list(WEIGHTS), list(WEIGHTS.values()))[0]
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "package"
        image = np.random.default_rng(number).integers(0, 256, (40, 50, 3), np.uint8)
        arguments: dict[str, Any] = {}
        if kind.startswith("call"):
            image, arguments = odd_image(chance, Path(scratch)), odd_arguments(chance)
            stated = f"{describe(image)} {arguments!r:.80}"
        elif kind == "names":
            folder = chance.choice(NAMES)
            stated = f"{folder!r:.40}"
        else:
            stated = spoiled_package(kind, packages, folder, chance)
        try:
            model = (
                models[kind.split()[1]] if kind.startswith("call") else AutoModel.from_pretrained(folder, device="cpu")
            )
            results = model(image, **arguments)
        except InputError as error:
            lacking = re.search("alloc|memory", str(error)) and "too much memory" not in str(error)
            many = len(str(error).splitlines()) > 1
            return kind, stated, f"FAULT {error}" if lacking or many or len(str(error)) > 10_000 else "InputError"
        except Exception as error:
            return kind, stated, f"FAULT {type(error).__name__}: {error!s:.200}"
        return kind, stated, "result" if all(map(is_whole, results)) else f"FAULT {MAPS_DIFFER}"


def is_whole(result: Any) -> bool:
    ids, confidence = result.segmentation_map, result.confidence
    finite = np.isfinite(confidence).all() and (confidence >= 0).all() and (confidence <= 1.00001).all()
    return ids.dtype == np.int64 and confidence.dtype == np.float32 and bool(finite) and ids.shape == confidence.shape


def describe(value: Any) -> str:
    if hasattr(value, "dtype") and hasattr(value, "shape"):
        return f"{type(value).__name__} {value.dtype} {tuple(value.shape)}"
    return f"{value!r:.60}"


# ---------------------------------------------------------------- workers


def memory(name: str) -> int:
    """Bytes, as Linux counts them for this process."""
    return int(re.search(rf"{name}:\s+(\d+)", Path("/proc/self/status").read_text())[1]) << 10  # pyright: ignore


def work(packages: dict[str, Path], seed: int) -> None:
    """Runs the cases whose numbers come in, one a line, and prints what came of them."""
    warnings.simplefilter("ignore")  # Pillow's and NumPy's, about what is in the images
    models = {engine: AutoModel.from_pretrained(folder, device="cpu") for engine, folder in packages.items()}
    for model in models.values():
        model(np.zeros((40, 50, 3), np.uint8))
    room = (
        memory("VmSize") + 2 * LIMIT
    )  # so that a fault does not take the machine's memory: address space is no memory
    resource.setrlimit(resource.RLIMIT_AS, (room, room))
    for line in sys.stdin:
        number = int(line)
        base = memory("VmRSS")
        Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
        start = time.monotonic()
        kind, stated, outcome = run_case(seed, number, packages, models)
        if memory("VmHWM") - base > LIMIT:
            outcome = f"FAULT took {memory('VmHWM') - base >> 20} MiB"
        print(json.dumps([number, kind, stated, outcome, time.monotonic() - start]), flush=True)


def outcomes(numbers: queue.SimpleQueue, command: list[str]) -> Iterator[list[Any]]:
    """Of the cases in the queue, from one worker after another."""
    worker, done = None, 0
    while not numbers.empty():
        if worker is None:
            worker, done = subprocess.Popen(command, stdin=-1, stdout=-1, stderr=subprocess.DEVNULL, text=True), 0
        assert worker.stdin
        assert worker.stdout
        number = numbers.get()
        worker.stdin.write(f"{number}\n")
        worker.stdin.flush()
        timer = threading.Timer(SECONDS + (60 if not done else 0), worker.kill)  # and the time to start
        timer.start()
        line = worker.stdout.readline()
        in_time = timer.is_alive()
        timer.cancel()
        done += 1
        if line:
            yield json.loads(line)
        else:
            how = f"FAULT crashed ({worker.wait()})" if in_time else f"FAULT took more than {SECONDS} s"
            yield [number, "?", "run it with --only", how, float(SECONDS)]
        if not line or done == CASES_A_WORKER:
            worker.stdin.close()
            worker.wait()
            worker = None
    if worker and worker.stdin:
        worker.stdin.close()
        worker.wait()


def make_packages(folder: Path) -> dict[str, Path]:
    """A small network as a JAX and as an ONNX package."""
    from flax import nnx

    from converters.export.onnx_graph.onnx_package import export
    from deeplab_jax.classes import Classes, default_palette
    from deeplab_jax.config import PreprocessConfig
    from deeplab_jax.model_config import ASPPConfig, DecoderConfig, ModelConfig, ResNetConfig
    from deeplab_jax.models import build_model
    from deeplab_jax.package import jax_weights

    config = ModelConfig(
        num_classes=5,
        encoder=ResNetConfig((1, 1, 1, 1), bottleneck=False, output_stride=16, dilation_rule="whole-stage", width=8),
        aspp=ASPPConfig(atrous_rates=(1, 2), channels=16, branches="separable", refine="separable", dropout=0.1),
        decoder=DecoderConfig(low_level_channels=8, channels=16),
    )
    model = build_model(config, rngs=nnx.Rngs(0))
    model.eval()
    classes = Classes(("background", "a", "b", "c", "d"), default_palette(5))
    jax_weights.save(folder / "jax", model, classes, PreprocessConfig(size=(49, 65)))
    export(folder / "jax", folder / "onnx")
    return {"jax": folder / "jax", "onnx": folder / "onnx"}


def threads_agree(package: Path, threads: int = 8, calls: int = 200) -> bool:
    """Whether calls from several threads at once give, bit by bit, what one thread gets."""
    model, noise = AutoModel.from_pretrained(package, device="cpu"), np.random.default_rng(0)
    images = [noise.integers(0, 256, (20 + 3 * n, 60 - 2 * n, 3), np.uint8) for n in range(10)]
    expected = [model(image)[0] for image in images]

    def same(number: int) -> bool:
        actual, wanted = model(images[number % 10])[0], expected[number % 10]
        maps = np.array_equal(actual.segmentation_map, wanted.segmentation_map)
        return maps and np.array_equal(actual.confidence, wanted.confidence)

    with ThreadPoolExecutor(threads) as pool:
        return all(pool.map(same, range(threads * calls)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=5000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--only", type=int, help="the number of a case")
    parser.add_argument("--packages", type=Path, help="(of a worker)")
    options = parser.parse_args()
    if options.packages:
        work({engine: options.packages / engine for engine in ("jax", "onnx")}, options.seed)
        return
    with tempfile.TemporaryDirectory() as scratch:
        packages = make_packages(Path(scratch))
        if options.only is not None:
            models = {engine: AutoModel.from_pretrained(folder, device="cpu") for engine, folder in packages.items()}
            print(*run_case(options.seed, options.only, packages, models), sep="\n")
            return
        numbers: queue.SimpleQueue = queue.SimpleQueue()
        for number in range(options.count):
            numbers.put(number)
        command = [sys.executable, __file__, "--packages", scratch, "--seed", str(options.seed)]
        counts: collections.Counter = collections.Counter()
        slowest, faults = 0.0, 0

        def note(actual: list[Any]) -> None:
            nonlocal slowest, faults
            number, kind, stated, outcome, seconds = actual
            counts[kind, outcome.split()[0]] += 1
            slowest = max(slowest, seconds)
            if outcome.startswith("FAULT"):
                faults += 1
                print(f"--seed {options.seed} --only {number}: {kind}: {stated:.200}: {outcome:.300}", flush=True)

        with ThreadPoolExecutor(options.workers) as pool:
            lock = threading.Lock()

            def gather(_: int) -> None:
                for actual in outcomes(numbers, command):
                    with lock:
                        note(actual)

            list(pool.map(gather, range(options.workers)))
        kinds = [*WEIGHTS, "?"]
        print("| kind | results | InputErrors | faults |\n|---|---|---|---|")
        for kind in kinds:
            row = [counts[kind, outcome] for outcome in ("result", "InputError", "FAULT")]
            if any(row):
                print(f"| {kind} | " + " | ".join(map(str, row)) + " |")
        print(f"{options.count} cases, {faults} faults; the slowest took {slowest:.1f} s")
        agree = {engine: threads_agree(folder) for engine, folder in packages.items()}
        print(f"8 threads x 200 calls equal to one thread: {agree}")
        sys.exit(bool(faults) or not all(agree.values()))


if __name__ == "__main__":
    assert set(SPOILERS) <= set(WEIGHTS)
    main()
