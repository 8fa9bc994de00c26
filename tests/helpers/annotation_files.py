"""Sample data by place, and JSON documents with something wrong in them."""

import copy
from collections.abc import Iterator
from typing import Any

import pytest

from helpers.fixtures import SHARED

JUNK = [None, True, -1, 0, 10**30, float("nan"), float("inf"), "", "..", "/", "\ud800", "a\nb", [], {}, [[]], [0.5] * 6]
JUNK += ["x" * 5000, [[1e300] * 6], [-(10**400)], {"size": [4, 6], "counts": "0"}, [None, "a"], {"a": [{}]}]


def sample(*parts):
    path = SHARED.joinpath("data", *parts)
    if not path.is_dir():
        pytest.skip(reason=f"{path.name} is not here")
    return path


def put(*path):
    """A change that puts the last of these at the place that the others lead to."""

    def change(stated):
        *keys, last, value = path
        for key in keys:
            stated = stated[key]
        stated[last] = value

    return change


def spoiled(document: Any) -> Iterator[Any]:
    """The document with junk in place of one value, or without it, for every value in it."""

    def places(value, path=()):
        yield path
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            if isinstance(inner, dict | list):
                yield from places(inner, (*path, key))
            else:
                yield (*path, key)

    for path in list(places(document))[1:]:
        for junk in (*JUNK, "remove"):
            copied = copy.deepcopy(document)
            owner = copied
            for key in path[:-1]:
                owner = owner[key]
            if junk == "remove":
                del owner[path[-1]]
            else:
                owner[path[-1]] = junk
            yield copied
    yield from JUNK
