"""Pickles that are written by hand to do harm, opcode by opcode."""

import pickle
import time

import numpy as np
import pytest

from converters.readers.torch_files import read_torch
from converters.readers.torch_objects import Placeholder
from helpers.memory import little_memory
from helpers.torch_files import archive, assert_refused, legacy, proto, refused, size

pytestmark = pytest.mark.usefixtures("unchecked")


CLASS = b"cbuiltins\nset\n"
COLLIDING = [pickle.LONG1 + b"\x0a" + size(i * (2**61 - 1), 10) + b"N" for i in range(30_000)]  # of one hash
NAMESPACE = b"cargparse\nNamespace\n)\x81"
PAIR = b"}(X\x01\x00\x00\x00ah\x00X\x01\x00\x00\x00bh\x00ubq\x00"  # twice the one before
HOSTILE = {
    "exponential": proto(b"]", b"2\x86" * 40),
    "exponential dictionaries": proto(b"}q\x00", b"}(U\x01ah\x00U\x01bh\x00uq\x00" * 40),
    "exponential key": proto(b"})", b"2\x86" * 40, b"Ns"),
    "cycle": proto(b"}q\x00X\x01\x00\x00\x00ah\x00s"),
    "deep tuples": proto(b")", b"\x85" * 10**5),
    "deep dictionaries": proto(b"}" + b"K\x00}" * 30_000, b"s" * 30_000),
    "deep keys": proto(b"}", b")", b"\x85" * 10**5, b"Ns"),
    "unhashable key": proto(b"}]Ns"),
    "namespace in itself": proto(NAMESPACE, b"q\x00}X\x01\x00\x00\x00ah\x00sb"),
    "deep namespaces": proto((NAMESPACE + b"}X\x01\x00\x00\x00a") * 1000, b"N", b"sb" * 1000),
    "exponential namespaces": proto(NAMESPACE, b"q\x00", b"".join(NAMESPACE + PAIR for _ in range(40))),
    "tensor as key": proto(b"}ctorch._utils\n_rebuild_tensor\n(NNNNtRNs"),
    "colliding keys": proto(b"}(", *COLLIDING, b"u"),
    "colliding pairs": proto(b"ccollections\nOrderedDict\n](", b"\x86".join(COLLIDING), b"\x86e\x85R"),
    "long name": proto(b"c" + b"a" * 10**6 + b"\nb\n"),
    "name of two lines": proto(b"\x8c\x03a\nb\x8c\x03c\rd\x93"),
    "EXT1": proto(b"\x82\x01"),
    "INST": proto(b"(ios\nsystem\n"),
    "OBJ": proto(b"(", CLASS, b"o"),
    "a global changed": proto(CLASS, b"}X\x04\x00\x00\x00callNsb]R"),
    "a number called": proto(b"K\x01)R"),
    "a list changed by BUILD and called": proto(b"]}X\x08\x00\x00\x00__call__Nsb)R"),
    "setitem of a text": proto(b"X\x01\x00\x00\x00aNNs"),
    "nothing": proto(),
    "unknown opcode": proto(b"\xff"),
    "storage without type": proto(b"(X\x07\x00\x00\x00storageNNNNtQ"),
    "storage that is no tuple": proto(b"NQ"),
    "not decodable": proto(b"U\x01\xff"),
    "scripted class": proto(b"c__torch__\nNet\n)\x81}b"),
}
GREEDY = {  # sizes that are not there
    "BINBYTES8": proto(b"\x8e", size(2**62)),
    "BINUNICODE8": proto(b"\x8d", size(2**62)),
    "BYTEARRAY8": proto(b"\x96", size(2**40)),
    "LONG4": proto(b"\x8b", size(2**31 - 1, 4)),
    "FRAME": proto(b"\x95", size(2**62)),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_pickles_are_refused_at_once(tmp_path, name):
    assert_refused(archive(tmp_path / "hostile.pth", HOSTILE[name]))


@pytest.mark.parametrize("name", ["cycle", "a number called", "unknown opcode"])
def test_hostile_pickles_in_the_legacy_format(tmp_path, name):
    assert_refused(legacy(tmp_path / "hostile.pth", HOSTILE[name]))


@pytest.mark.parametrize("write", [archive, legacy])
@pytest.mark.parametrize("name", GREEDY)
def test_a_declared_size_reserves_no_memory(tmp_path, name, write):
    path = write(tmp_path / "size.pth", GREEDY[name])
    with little_memory(2**24):
        assert_refused(path)


def test_a_huge_memo_index_reserves_no_memory(tmp_path):
    path = archive(tmp_path / "memo.pth", proto(b"]r", size(2**32 - 1, 4), b"0j", size(2**32 - 1, 4)))
    with little_memory(2**24):
        assert read_torch(path) == []


def numpy_array(shape, code=b"f8", data=b"C\x08" + bytes(8), order=b"<"):
    """`_reconstruct`, then its state by BUILD: version, shape, type, order of axes and bytes."""
    kind = b"cnumpy\ndtype\n(X\x02\x00\x00\x00" + code + b"tR(K\x03X\x01\x00\x00\x00" + order + b"NNNK\x00K\x00K\x00tb"
    return b"cnumpy._core.multiarray\n_reconstruct\n)R(K\x01" + shape + kind + b"\x89" + data + b"tb"


@pytest.mark.parametrize(
    "opcodes",
    [
        numpy_array(b"K\x02\x85"),
        numpy_array(b"(" + b"\x8a\xff" + b"\x7f" * 255 + b"\x8a\xff" + b"\x7f" * 255 + b"t"),
        numpy_array(b"(" + b"K\x01" * 100_000 + b"t"),
        numpy_array(b"\x8a\x01\xff\x85"),
        numpy_array(b"K\x01\x85", code=b"O8"),
        numpy_array(b"K\x01\x85", order=b">"),
        numpy_array(b"N"),
        numpy_array(b"K\x01\x85", data=b"N"),
        b"cnumpy._core.multiarray\nscalar\n)R",
        b"c_codecs\nencode\nX\x10\x27\x00\x00" + b"a" * 10_000 + b"X\x06\x00\x00\x00latin1\x86R",
        b"comegaconf.dictconfig\nDictConfig\n)\x81q\x00}X\x07\x00\x00\x00_parenth\x00sb",
        b"cargparse\nNamespace\n)\x81]b",
        b"c_operator\ngetitem\n)R",
    ],
)
def test_impossible_arrays_and_objects_stand_for_nothing(tmp_path, opcodes):
    path = archive(tmp_path / "odd.pth", proto(opcodes))
    start = time.perf_counter()
    assert type(read_torch(path)) is Placeholder
    assert time.perf_counter() - start < 2


def test_a_small_array_written_by_hand_is_read(tmp_path):
    """So that the ones above fail for what they say."""
    path = archive(tmp_path / "array.pth", proto(numpy_array(b"K\x01\x85")))
    np.testing.assert_array_equal(read_torch(path), np.zeros(1))


MODULE = b"c__torch__\nNet\n)\x81"
DOUBLED = [b"X\x01\x00\x00\x00ah%cX\x01\x00\x00\x00bh%cubq%c" % (i, i, i + 1) for i in range(40)]
SCRIPTS = {
    "cycle": (MODULE + b"q\x00}(X\x01\x00\x00\x00ah\x00ub", "too deep a nest"),
    "deep": ((MODULE + b"}(X\x01\x00\x00\x00a") * 1000 + b"N" + b"ub" * 1000, "too deep a nest"),
    "exponential": (MODULE + b"q\x00" + b"".join(MODULE + b"}(" + pair for pair in DOUBLED), "too many objects"),
    "state that is no dictionary": (MODULE + b"]b", "without weights"),
    "no state": (MODULE, "without weights"),
    "no module": (b"]", "holds no module"),
    "attribute without a name": (MODULE + b"}(NNub", "has no name"),
    "code": (b"cos\nsystem\n)\x81", "holds a pickled os.system"),
}


@pytest.mark.parametrize("name", SCRIPTS)
def test_hostile_torchscript(tmp_path, name):
    opcodes, reason = SCRIPTS[name]
    path = archive(tmp_path / "script.pt", proto(opcodes), {"code/__torch__.py": "raise SystemExit"})
    assert reason in refused(path, limit=5)
