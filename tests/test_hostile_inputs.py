"""A few of the inputs of experiments/checks/hostile_inputs.py, which tries thousands in processes with limits."""

import resource
import sys
import warnings

import pytest

from helpers.fixtures import ROOT

pytest.importorskip("torch")  # its tensors are among the images
sys.path.append(str(ROOT / "experiments" / "checks"))
import hostile_inputs

from deeplab_jax import AutoModel


@pytest.fixture(scope="module")
def packages(tiny_package, onnx_package):
    return {"jax": tiny_package, "onnx": onnx_package}


@pytest.fixture(scope="module")
def models(packages):
    return {engine: AutoModel.from_pretrained(folder, device="cpu") for engine, folder in packages.items()}


@pytest.fixture
def little_memory():
    """A fault shall fail the test and not take the machine's memory."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (hostile_inputs.memory("VmSize") + 2 * hostile_inputs.LIMIT, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, before)


@pytest.mark.usefixtures("little_memory")
@pytest.mark.parametrize("numbers", [range(start, start + 20) for start in range(0, 120, 20)], ids=lambda r: f"{r[0]}")
def test_results_or_clear_exceptions(packages, models, numbers):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the libraries that read images, about what is in them
        outcomes = [hostile_inputs.run_case(7, number, packages, models) for number in numbers]
    # Arguments of a wrong type are refused by the annotations already, which only the tests check.
    checked = [outcome.split(":")[0].replace("FAULT TypeCheckError", "InputError") for *_, outcome in outcomes]
    assert set(checked) <= {"result", "InputError"}, outcomes


def test_a_case_can_be_drawn_again(packages, models):
    assert hostile_inputs.run_case(7, 3, packages, models) == hostile_inputs.run_case(7, 3, packages, models)


@pytest.mark.parametrize("engine", ["jax", "onnx"])
def test_threads_get_what_one_gets(packages, engine):
    assert hostile_inputs.threads_agree(packages[engine], threads=8, calls=10)
