"""Eight host devices, and the strictest settings that every test can run under."""

import importlib
from collections import defaultdict
from fnmatch import fnmatchcase
from pathlib import Path

import jax
import matplotlib as mpl
import pytest
from hypothesis import settings

mpl.use("agg")
settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.load_profile("repeatable")
jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_numpy_rank_promotion", "raise")


@pytest.fixture
def x64():
    """Double precision for one test."""
    with jax.enable_x64(True):
        yield


@pytest.fixture
def documents(monkeypatch):
    """Imports a module of the documents."""
    monkeypatch.syspath_prepend(Path(__file__).parent.parent / "docs")
    return importlib.import_module


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """Leaves the cases of a test that its mark `daily` does not name to the night."""
    cases = defaultdict(list)
    for item in items:
        if item.get_closest_marker("daily"):
            cases[item.nodeid.partition("[")[0]].append(item)
    for test, marked in cases.items():
        patterns = marked[0].get_closest_marker("daily").args
        for pattern in patterns:
            # One case alone may have been asked for.
            if len(marked) > 1 and not any(is_named(x, [pattern]) for x in marked):
                raise pytest.UsageError(f"{test} has no case {pattern!r}")
        for item in marked:
            if not is_named(item, patterns):
                item.add_marker(pytest.mark.nightly)


def is_named(item, patterns):
    """Whether the identifier of a case matches one of some patterns."""
    return any(fnmatchcase(item.callspec.id, pattern) for pattern in patterns)
