"""Imports point one way: what each room may import, and no circles."""

import ast

import pytest

from helpers.fixtures import ROOT

# Each may import those before it, and its own. What stands together may not import each other.
ROOMS = [
    {"deeplab_jax.errors"},
    {"deeplab_jax.array_types"},
    {"deeplab_jax.protobuf", "deeplab_jax.classes", "deeplab_jax.serialization"},
    {"deeplab_jax.model_config"},
    {"deeplab_jax.config"},
    {"deeplab_jax.models", "deeplab_jax.image"},
    {"deeplab_jax.package"},
    {"deeplab_jax.data", "deeplab_jax.evaluate.metrics"},
    {"deeplab_jax.inference"},
    {"deeplab_jax.evaluate", "deeplab_jax.train"},
    {"converters"},
    {"deeplab_jax.demo"},
    {"deeplab_jax.cli"},
]
APART = {("deeplab_jax.inference", "deeplab_jax.data")}  # earlier rooms that are not needed, and what they would bring
NEVER = {"torch", "tensorflow", "experiments"}


def modules():
    for package in ("deeplab_jax", "converters"):
        for path in sorted((ROOT / package).rglob("*.py")):
            yield ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"), path


NAMES = dict(modules())


def room_of(name: str) -> str:
    rooms = [room for level in ROOMS for room in level if name == room or name.startswith(room + ".")]
    return max(rooms, key=len)


def level_of(room: str) -> int:
    return next(number for number, level in enumerate(ROOMS) if room in level)


def imports(path, module_level=False):
    tree = ast.parse(path.read_text())
    for node in tree.body if module_level else ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            yield from (
                f"{node.module}.{alias.name}" if f"{node.module}.{alias.name}" in NAMES else node.module
                for alias in node.names
            )
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


TOP = {"deeplab_jax", "deeplab_jax.__main__", "converters"}


@pytest.mark.parametrize("name", [name for name in NAMES if name not in TOP])
def test_imports_point_one_way(name):
    room = room_of(name)
    for other in imports(NAMES[name]):
        top = other.split(".")[0]
        assert top not in NEVER or (room == "converters" and top != "experiments"), other
        if top in ("deeplab_jax", "converters") and other not in TOP:
            target = room_of(other)
            assert target == room or level_of(target) < level_of(room), f"{name} imports {other}"
            assert (room, target) not in APART, f"{name} imports {other}"


def test_no_import_circle():
    graph = {name: {other for other in imports(path, True) if other in NAMES} - TOP for name, path in NAMES.items()}
    done: set[str] = set()

    def visit(name, way):
        assert name not in way, " -> ".join([*way[way.index(name) :], name])
        if name not in done:
            for other in graph[name]:
                visit(other, [*way, name])
            done.add(name)

    for name in graph:
        visit(name, [])


@pytest.mark.parametrize("name", NAMES)
def test_no_module_is_named_like_a_library_that_it_imports(name):
    roots = {other.split(".")[0] for other in imports(NAMES[name])}
    own = name.rsplit(".", 1)[-1]
    assert own not in roots - {"deeplab_jax", "converters"}
