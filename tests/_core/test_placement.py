"""Zeros of many leaves, in parts on their devices."""

import jax
import pytest
from jax.sharding import PartitionSpec as P

from optax_extras._core.placement import zeros_of

SHAPES = [(4, 7), (4, 8), (4, 9), (4, 7), (2, 4)]
SPECS = [*[P("data")] * 4, P(None, "data")]


@pytest.fixture
def compiled():
    """Programs that XLA has compiled since."""
    found = []

    def note(event, duration, **options):
        if event == "/jax/core/compile/backend_compile_duration":
            found.append(options)

    jax.monitoring.register_event_duration_secs_listener(note)
    yield found
    jax.monitoring.clear_event_listeners()


def test_one_program_makes_all_leaves_in_their_parts(compiled):
    with jax.set_mesh(jax.make_mesh((4,), ("data",), devices=jax.devices()[:4])):
        made = [zeros_of(SHAPES, SPECS, [], "data") for _ in range(2)]
    assert len(compiled) == 1
    arrays = [array for one in made for array in one]
    assert [x.shape for x in arrays] == SHAPES * 2
    assert all(not x.any() and len(x.sharding.device_set) == 4 for x in arrays)
    parts = [shard.data for x in arrays for shard in x.addressable_shards]
    assert {part.shape for part in parts} == {(1, 7), (1, 8), (1, 9), (2, 1)}
    # Each has memory of its own, so that a step may be given all of them.
    assert len({part.unsafe_buffer_pointer() for part in parts}) == len(parts)
