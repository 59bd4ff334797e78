"""Eight host devices, and the strictest settings that every test can run under."""

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
