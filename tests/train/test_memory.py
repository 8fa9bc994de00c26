"""Where memory is full, one line says what to lower."""

import jax
import numpy as np
import pytest

from deeplab_jax.errors import InputError
from deeplab_jax.train.memory import explain_lack_of_memory


def test_a_full_host_names_the_sizes(tiny_experiment):
    with (
        pytest.raises(InputError, match=r"^the machine has too little memory for .*batch_size=8 .*=32 40 .*grad_a"),
        explain_lack_of_memory(tiny_experiment),
    ):
        np.zeros((2**40, 2**10), np.uint8)


def test_a_full_device_names_the_sizes(tiny_experiment):
    message = "RESOURCE_EXHAUSTED: Out of memory while trying to allocate 12345 bytes.\nMore"
    with (
        pytest.raises(InputError, match=r"^a device of this machine .* \(RESOURCE_EXHAUSTED: Out of memory while"),
        explain_lack_of_memory(tiny_experiment),
    ):
        raise jax.errors.JaxRuntimeError(message)
    with pytest.raises(jax.errors.JaxRuntimeError), explain_lack_of_memory(tiny_experiment):
        raise jax.errors.JaxRuntimeError("INTERNAL: a bug")
