"""Inputs that nobody means well with, each drawn from a seed: spoiled packages, crafted graphs, things for images."""

import json
import os
import random
import shutil
import struct
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
from hostile_graphs import NUMBERS, REALS, crafted_graph, spoil_graph
from PIL import Image

TEXTS = (
    "",
    " ",
    "\0",
    "../../../../etc/passwd",
    "/dev/zero",
    "A" * 100_000,
    "%s%n",
    "café",
    "\ud800",
    "null",
    "\n\n",
    "-1",
)


def bad_json(chance: random.Random) -> Any:
    depth = chance.choice((2, 50))
    nested: Any = 1
    for _ in range(depth):
        nested = [nested] if chance.random() < 0.5 else {"x": nested}
    return chance.choice(
        (None, True, False, [], {}, nested, *NUMBERS, *REALS, *TEXTS, [1] * 1000, 10**30, 10**5000 % 7)
    )


def spoil_bytes(content: bytes, chance: random.Random) -> tuple[str, bytes]:
    data = bytearray(content)
    match chance.randrange(6):
        case 0:
            end = chance.randrange(len(data))
            return f"cut at {end}", bytes(data[:end])
        case 1:
            for _ in range(count := chance.choice((1, 2, 5, 50))):
                data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
            return f"{count} bits flipped", bytes(data)
        case 2:
            at, length = chance.randrange(len(data)), chance.choice((1, 8, 100, 5000))
            data[at : at + length] = chance.choice((b"\0", b"\xff", b"\x7f")) * length
            return f"{length} bytes overwritten at {at}", bytes(data)
        case 3:
            at, source, length = chance.randrange(len(data)), chance.randrange(len(data)), chance.choice((4, 100, 5000))
            data[at:at] = data[source : source + length]
            return f"{length} bytes of {source} repeated at {at}", bytes(data)
        case 4:
            at, length = chance.randrange(len(data)), chance.choice((1, 10, 1000))
            del data[at : at + length]
            return f"{length} bytes taken out at {at}", bytes(data)
        case _:
            return "random bytes", chance.randbytes(chance.choice((0, 1, 8, 100, 10_000)))


def spoil_json(content: bytes, chance: random.Random) -> tuple[str, bytes]:
    if chance.random() < 0.2:
        return spoil_bytes(content, chance)
    if chance.random() < 0.1:
        depth = chance.choice((100, 100_000))
        return f"{depth} deep", chance.choice((b"[", b'{"x":')) * depth
    document = json.loads(content)
    parent, way = document, []
    while isinstance(parent, (dict, list)) and parent:
        key = chance.choice(list(parent) if isinstance(parent, dict) else range(len(parent)))
        way.append(key)
        if not isinstance(parent[key], (dict, list)) or not parent[key] or chance.random() < 0.3:
            break
        parent = parent[key]
    if chance.random() < 0.2:
        del parent[way[-1]]
        return f"{way} deleted", json.dumps(document).encode()
    parent[way[-1]] = value = bad_json(chance)
    return f"{way} = {value!r:.40}", json.dumps(document).encode("utf-8", "surrogatepass")


def spoil_names(content: bytes, chance: random.Random) -> tuple[str, bytes]:
    options = (
        b"",
        b"background",
        b"background\nbackground\n" * 2,
        b"\xef\xbb\xbf" + content,
        content + chance.randbytes(50),
        content + b"\0\n",
        content.replace(b"\n", b"\r"),
        b"background\n" + b"x" * 10**6,
        b"background\n" + b"x\n" * 10**6,
        b"BACKGROUND\n../../a\n/etc/passwd\n$x\nb\n",
        "background\nгород\n☃\n\u202e\na\n".encode(),
    )
    number = chance.randrange(len(options))
    return f"variant {number}", options[number]


def spoil_safetensors(content: bytes, chance: random.Random) -> tuple[str, bytes]:
    if chance.random() < 0.5:
        return spoil_bytes(content, chance)
    length = struct.unpack("<Q", content[:8])[0]
    header, data = json.loads(content[8 : 8 + length]), content[8 + length :]
    name = chance.choice([key for key in header if key != "__metadata__"])
    match chance.randrange(6):
        case 0:
            return "length of the header", struct.pack("<Q", chance.choice(NUMBERS) % 2**64) + content[8:]
        case 1:
            header[name]["shape"] = [abs(chance.choice(NUMBERS)) for _ in range(chance.randrange(5))]
        case 2:
            header[name]["data_offsets"] = [abs(chance.choice(NUMBERS)), abs(chance.choice(NUMBERS))]
        case 3:
            header[name]["dtype"] = chance.choice(("F64", "BF16", "I8", "BOOL", "F8_E4M3", "X", 1, None))
        case 4:
            header[chance.choice(TEXTS[:-3])] = header.pop(name) if chance.random() < 0.5 else dict(header[name])
        case _:
            header[name] = bad_json(chance)
    text = json.dumps(header).encode("utf-8", "surrogatepass")
    return f"header of {name}", struct.pack("<Q", len(text)) + text + data


SPOILERS: dict[str, tuple[str, str, Callable[[bytes, random.Random], tuple[str, bytes]]]] = {
    "onnx bytes": ("onnx", "weights.onnx", spoil_bytes),
    "onnx spoiled graph": ("onnx", "weights.onnx", spoil_graph),
    "onnx crafted graph": ("onnx", "weights.onnx", crafted_graph),
    "onnx json": ("onnx", "inference_config.json", spoil_json),
    "onnx model json": ("onnx", "model_config.json", spoil_json),
    "onnx class names": ("onnx", "class_names.txt", spoil_names),
    "jax weights": ("jax", "weights.safetensors", spoil_safetensors),
    "jax architecture": ("jax", "architecture.json", spoil_json),
    "jax json": ("jax", "inference_config.json", spoil_json),
}


def spoiled_package(kind: str, good: dict[str, Path], folder: Path, chance: random.Random) -> str:
    """Writes a package into the new folder; returns what is wrong with it."""
    if kind == "files":
        return swapped_file(good[chance.choice(("onnx", "jax"))], folder, chance)
    engine, file, spoil = SPOILERS[kind]
    shutil.copytree(good[engine], folder)
    (folder / "link").symlink_to("/etc/passwd")
    os.mkfifo(folder / "pipe")
    stated, content = spoil((folder / file).read_bytes(), chance)
    (folder / file).write_bytes(content)
    return stated


def swapped_file(good: Path, folder: Path, chance: random.Random) -> str:
    """A package in which a file is none."""
    shutil.copytree(good, folder)
    file = chance.choice(sorted(folder.iterdir()))
    file.unlink()
    match what := chance.choice(("missing", "folder", "pipe", "loop", "zeros", "sparse", "memory")):
        case "folder":
            file.mkdir()
        case "pipe":
            os.mkfifo(file)
        case "loop":
            file.symlink_to(file)
        case "zeros":
            file.symlink_to("/dev/zero")
        case "sparse":
            file.touch()
            os.truncate(file, 1 << 31)
        case "memory":
            file.symlink_to("/proc/self/mem")
    return f"{file.name}: {what}"


def odd_image(chance: random.Random, folder: Path) -> Any:
    height, width = chance.choice(
        ((1, 1), (1, 10_000), (10_000, 1), (3, 3), (49, 65), (7, 1000), (0, 5), (2, 0), (64, 64))
    )
    noise = np.random.default_rng(chance.randrange(2**32))
    image = noise.integers(0, 256, (height, width, 3), np.uint8)
    match chance.randrange(16):
        case 0:
            return image
        case 1:
            return noise.integers(0, 256, (height, width), np.uint8)
        case 2:
            return noise.integers(0, 256, (height, width, chance.choice((0, 1, 2, 4, 5))), np.uint8)
        case 3:
            kind = chance.choice((np.float16, np.float32, np.float64, np.longdouble))
            return (image.astype(np.float64) * chance.choice((1, 1 / 255, -1, 1e6))).astype(kind)
        case 4:
            floats = image.astype(np.float32)
            floats[: chance.randrange(1, 3)] = chance.choice(REALS)
            return floats
        case 5:
            kinds = (
                np.uint16,
                np.int8,
                np.int16,
                np.int32,
                np.uint64,
                np.int64,
                np.bool_,
                np.complex64,
                object,
                "U3",
                "M8[s]",
            )
            return image.astype(chance.choice(kinds))
        case 6:
            return image[::-1, ::-2, ::-1]
        case 7:
            return np.asfortranarray(image).astype(chance.choice((">u2", ">f4", "u1")))
        case 8:
            return image[chance.choice((None, 0, (0, 0), (None, None)))] if height and width else image
        case 9:
            return np.broadcast_to(image[:1, :1], (chance.choice((10, 2**14)), 2**13, 3)) if image.size else image
        case 10:
            modes = "1", "L", "P", "RGBA", "CMYK", "I", "F", "LAB", "HSV", "LA", "YCbCr", "I;16"
            return Image.new(chance.choice(modes), (chance.choice((1, 40)), chance.choice((1, 30))))
        case 11:
            path = folder / chance.choice(("a.png", "a.jpg", "a.gif", "a.txt", "a.bmp"))
            Image.new("RGB", (50, 40), "red").save(path, "JPEG" if path.suffix == ".txt" else None)
            path.write_bytes(spoil_bytes(path.read_bytes(), chance)[1])
            return chance.choice((path, str(path)))
        case 12:
            return chance.choice(
                ("", "absent.png", "/dev/zero", "/etc/passwd", "\0", str(folder), Path("."), "a" * 5000)
            )
        case 13:
            return chance.choice(
                (None, 0, 1.5, b"\xff\xd8", {}, {"image": image}, set(), object(), type, iter([image]))
            )
        case 14:
            return chance.choice(([], (), [[]], [None], [[image]], [image, "absent"], [[1, 2], [3]], [image] * 40))
        case _:
            import torch

            tensor = torch.from_numpy(image)
            changes: tuple[Callable[[], Any], ...] = (
                lambda: tensor,
                lambda: tensor.permute(2, 0, 1),
                lambda: tensor.permute(2, 0, 1).expand(3, 3, height, width),
                lambda: tensor.float() * chance.choice(REALS),
                lambda: tensor.to(torch.bfloat16),
                lambda: tensor.to(torch.complex64),
                lambda: tensor.to(torch.int32).to_sparse(),
                lambda: torch.empty(tensor.shape, device="meta"),
                lambda: tensor.permute(2, 0, 1).float().requires_grad_(),
            )
            return chance.choice(changes)()


def odd_arguments(chance: random.Random) -> dict[str, Any]:
    confidences = (*REALS, None, "best", "default", "0.5", "nan", 0, 1, 2, True, [0.5], {}, Decimal("0.5"), 10**400)
    confidences += (np.float32(0.5), np.array([0.1, 0.2]), np.array(0.5), 0.5j, b"x")
    arguments = {}
    if chance.random() < 0.4:
        arguments["confidence"] = chance.choice(confidences)
    if chance.random() < 0.2:
        arguments["input_color_format"] = chance.choice(("rgb", "bgr", "RGB", "", None, 3, [], {}))
    return arguments
