"""Against torch.save and torch.load: what they write is read, and what cannot be used is refused in one line."""

import os
import pathlib
import subprocess
import sys
from collections import Counter

import numpy as np
import pytest

from converters.readers.torch_files import read_torch
from converters.readers.torch_objects import Placeholder
from helpers.fixtures import ROOT
from helpers.torch_files import FORMATS, SCRIPT_WARNINGS, assert_same, checkpoint, network, refused, saved, torch


@FORMATS
@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_reads_what_was_saved(tmp_path, zipped, protocol):
    path = saved(tmp_path / "checkpoint.pth", checkpoint(), zipped, protocol)
    assert_same(read_torch(path), torch.load(path, weights_only=False))


@FORMATS
def test_tensors_that_share_a_storage(tmp_path, zipped):
    base = torch.rand(4, 4)
    actual = read_torch(saved(tmp_path / "shared.pth", [base, base[1:, 1:], base.T, base], zipped))
    assert_same(actual, [base, base[1:, 1:], base.T, base])
    assert all(np.shares_memory(actual[0], other) for other in actual[1:])


@FORMATS
def test_a_tensor_alone_and_one_with_attributes(tmp_path, zipped):
    parameter = torch.nn.Parameter(torch.rand(2, 2))
    parameter.no_decay = True
    assert_same(read_torch(saved(tmp_path / "one.pth", torch.ones(2), zipped)), torch.ones(2))
    assert_same(read_torch(saved(tmp_path / "parameter.pth", {"w": parameter}, zipped)), {"w": parameter})


@FORMATS
def test_an_optimizer_and_its_tensors(tmp_path, zipped):
    model = network()
    optimizer = torch.optim.Adam(model.parameters())
    model(torch.rand(2, 3, 8, 8)).sum().backward()
    optimizer.step()
    state = {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
    assert_same(read_torch(saved(tmp_path / "training.pth", state, zipped)), state)


@FORMATS
def test_other_objects_are_left_out(tmp_path, zipped):
    value = {
        "path": pathlib.PurePosixPath("/a/b"),
        "array": np.arange(1000),
        "text": np.array(["a"]),
        "big-endian": np.arange(3, dtype=">f4"),
        "device": torch.device("cpu"),
        "dtype": torch.float32,
        "milestones": Counter([30, 60]),
        "set": {1, 2},
    }
    actual = read_torch(saved(tmp_path / "lightning.ckpt", {**value, "state_dict": {"w": torch.ones(1)}}, zipped))
    assert_same(actual.pop("state_dict"), {"w": torch.ones(1)})
    assert list(actual) == list(value)
    assert all(type(item) is Placeholder and not hasattr(item, "__dict__") for item in actual.values())


def test_checksums_that_torch_was_told_to_leave_out(tmp_path):
    torch.serialization.set_crc32_options(False)
    try:
        path = saved(tmp_path / "unchecked.pth", {"w": torch.ones(9)})
    finally:
        torch.serialization.set_crc32_options(True)
    assert_same(read_torch(path), {"w": torch.ones(9)})


@SCRIPT_WARNINGS
@pytest.mark.parametrize("how", ["scripted", "traced"])
def test_torchscript(tmp_path, how):
    model = network().eval()
    scripted = torch.jit.script(model) if how == "scripted" else torch.jit.trace(model, torch.rand(1, 3, 8, 8))
    path = tmp_path / "model.pt"
    torch.jit.save(scripted, path)
    actual = read_torch(path)
    assert_same(dict(sorted(actual.items())), dict(sorted(model.state_dict().items())))
    assert_same(dict(sorted(actual.items())), dict(sorted(torch.jit.load(path).state_dict().items())))


class Tied(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.first = torch.nn.Linear(2, 2)
        self.second = self.first
        self.names = {"a": 1}
        self.sizes = [1, 2]
        self.register_buffer("factors", torch.ones(3, dtype=torch.float16))

    def forward(self, x):
        return self.second(self.first(x)) * self.factors.float().sum() * self.names["a"] * self.sizes[0]


@SCRIPT_WARNINGS
def test_torchscript_of_shared_modules_and_of_none(tmp_path):
    model = Tied()
    torch.jit.save(torch.jit.script(model), tmp_path / "tied.pt")
    assert_same(dict(sorted(read_torch(tmp_path / "tied.pt").items())), dict(sorted(model.state_dict().items())))
    torch.jit.save(torch.jit.freeze(torch.jit.script(model.eval())), tmp_path / "frozen.pt")
    assert "without weights" in refused(tmp_path / "frozen.pt")


def test_needs_no_torch(tmp_path):
    path = saved(tmp_path / "weights.pth", {"w": torch.ones(2, 2, dtype=torch.bfloat16)})
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "from pathlib import Path; from converters.readers.torch_files import read_torch\n"
        "print(float(read_torch(Path(sys.argv[1]))['w'].sum()))"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    run = subprocess.run([sys.executable, "-c", code, str(path)], env=environment, capture_output=True, text=True)
    assert run.stdout.split() == ["4.0"], run.stderr


@FORMATS
def test_whole_models_are_refused(tmp_path, zipped):
    message = refused(saved(tmp_path / "model.pth", {"model": network()}, zipped))
    assert "holds a pickled torch.nn.modules" in message
    assert "save model.state_dict()" in message


def test_a_conjugated_tensor_is_refused(tmp_path):
    assert "lazily conjugated" in refused(saved(tmp_path / "conj.pth", torch.tensor([1 + 2j]).conj()))


@pytest.mark.parametrize(
    "content",
    [b"<html><body>Not\nfound</body></html>", b"version https://git-lfs.github.com/spec/v1\n", b"\x00", b"PK"],
)
def test_what_is_no_pytorch_file(tmp_path, content):
    path = tmp_path / "page.pth"
    path.write_bytes(content)
    assert "is no PyTorch file (it begins with '" in refused(path)


def test_what_is_no_file(tmp_path):
    (tmp_path / "empty.pth").write_bytes(b"")
    assert "is empty" in refused(tmp_path / "empty.pth")
    assert "does not exist" in refused(tmp_path / "absent.pth")
    assert "is no file" in refused(tmp_path)
    np.savez(tmp_path / "arrays.npz", w=np.ones(3))
    assert "without a data.pkl" in refused(tmp_path / "arrays.npz")
