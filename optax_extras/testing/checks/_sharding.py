"""Parameters that are spread over devices."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import AxisType

from optax_extras.testing import _compare
from optax_extras.testing._registry import check
from optax_extras.testing._subject import STEPS, Subject, gradients
from optax_extras.testing.checks._meshes import plain, shardings


@check()
def sharding_is_kept(subject: Subject) -> None:
    """Buffers of the state are sharded as their parameter, after `init` and `update`.

    Why: a replicated moment of a sharded parameter does not fit in memory.
    Source: optax's `test_state_sharding_type_init_match_update`.
    Fix: make buffers with `jnp.zeros_like(p)` or `optax.tree.zeros_like`, not with
    `jnp.zeros(p.shape)`.
    """
    subject.needs_no_axis()
    own = shardings(AxisType.Auto)
    params = jax.device_put(plain(), own)
    tx = subject.make()
    state = tx.init(params)
    _same_sharding("the initial state", state, params)
    grads = jax.device_put(gradients(plain(), 0), own)

    @jax.jit
    def step(grads: Any, state: Any, params: Any) -> Any:
        updates, state = subject.update(tx, grads, state, params)
        return optax.apply_updates(params, updates), state

    after, state = step(grads, state, params)
    _same_sharding("the state after an update", state, params)
    # Updates themselves may be constants, which the compiler puts on one device.
    _same_sharding("the parameters after an update", after, params)


def _same_sharding(what: str, tree: Any, params: Any) -> None:
    by_shape = {p.shape: p.sharding for p in jax.tree.leaves(params)}
    for path, leaf in jax.tree.leaves_with_path(tree):
        wanted = by_shape.get(np.shape(leaf))
        if wanted is not None:
            _compare.require(
                leaf.sharding.is_equivalent_to(wanted, leaf.ndim),
                f"{what} at {_compare.show(path)}: expected {wanted.spec}, got"
                f" {leaf.sharding}",
            )


def _train(subject: Subject, params: Any, own: Any) -> Any:
    tx = subject.make()

    @jax.jit
    def step(params: Any, state: Any, grads: Any, number: Any) -> Any:
        updates, state = subject.update(tx, grads, state, params, number)
        return optax.apply_updates(params, updates), state

    state, start = tx.init(params), plain()
    for number in range(STEPS):
        grads = gradients(start, number)
        if own is not None:
            grads = jax.device_put(grads, own)
        params, state = step(params, state, grads, number)
    return params


def _same_as_on_one_device(subject: Subject, kind: AxisType) -> None:
    subject.needs_no_axis()
    own = shardings(kind)
    mesh: Any = own["w"].mesh
    with jax.set_mesh(mesh):
        sharded = _train(subject, jax.device_put(plain(), own), own)
    _compare.equal(
        "the parameters",
        jax.device_get(sharded),
        jax.device_get(_train(subject, plain(), None)),
        _compare.TOLERANCE,
    )


@check()
def many_devices_equal_one(subject: Subject) -> None:
    """Sharded parameters on an `AxisType.Auto` mesh are trained as on one device.

    Why: a result must not depend on the machine.
    Source: JAX docs, distributed arrays: a compiled function's result does not depend
    on the sharding of its arguments.
    Fix: reduce over whole leaves in `jnp`; number elements globally.
    """
    _same_as_on_one_device(subject, AxisType.Auto)


@check("advice")
def scan_inside_shard_map(subject: Subject) -> None:
    """A `lax.scan` over steps inside `jax.shard_map` keeps the types of its carry.

    Why: it is how training is written for devices that talk rarely.
    Source: this suite (advice).
    Fix: make buffers with `jnp.zeros_like(p)`: they then vary over the devices as the
    parameter does, which the scan checks.
    """
    subject.needs_no_axis()
    own = shardings(AxisType.Auto)
    axis = own["w"].spec

    def train(params: Any) -> Any:
        tx = subject.make()

        def body(carry: Any, step: Any) -> tuple[Any, None]:
            params, state = carry
            updates, state = subject.update(tx, params, state, params, step)
            return (optax.apply_updates(params, updates), state), None

        steps = jnp.arange(STEPS, dtype=jnp.int32)
        return jax.lax.scan(body, (params, tx.init(params)), steps)[0][0]

    mapped = jax.shard_map(
        train, mesh=own["w"].mesh, in_specs=(axis,), out_specs=axis, check_vma=True
    )
    _compare.finite("the parameters", jax.jit(mapped)(plain()))


@check()
def explicit_sharding(subject: Subject) -> None:
    """Parameters on an `AxisType.Explicit` mesh are trained as on one device.

    Why: it is the default of `jax.make_mesh` from JAX 0.12 on.
    Source: optax's `ShardingTest`, whose meshes have explicit axes.
    Fix: make arrays like the parameter (`jnp.zeros_like(p)`), and do not reshape or
    concatenate sharded leaves.
    """
    _same_as_on_one_device(subject, AxisType.Explicit)
