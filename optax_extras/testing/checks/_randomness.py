"""Random numbers: drawn from the key, the step and the leaf, and from nothing else."""

from typing import Any

import jax
import jax.flatten_util
import jax.numpy as jnp
import optax
from jax.sharding import AxisType

from optax_extras.testing import _compare
from optax_extras.testing._registry import check
from optax_extras.testing._subject import KEY, Subject, parameters
from optax_extras.testing.checks._meshes import plain, shardings


def _twins() -> dict[str, jax.Array]:
    """Two leaves alike, so that only the draw can make their updates differ."""
    return {"a": jnp.ones((4, 2)), "b": jnp.ones((4, 2))}


def _draw(subject: Subject, params: Any, key: Any = KEY, steps: int = 1) -> Any:
    """The updates of the last of some steps whose gradients are all zero."""
    subject.needs("random")
    tx = subject.make(key=key)
    state = tx.init(params)
    grads = jax.tree.map(jnp.zeros_like, params)
    for step in range(steps):
        updates, state = subject.update(tx, grads, state, params, step)
    return updates


@check()
def same_key_same_draw(subject: Subject) -> None:
    """One int always gives the same draw, and so does one `jax.random.key`.

    Why: experiments are repeated, and every process must draw alike.
    Source: JAX docs, `jax.random`: one key always gives one draw.
    Fix: take all randomness from the key; no `np.random`, no `hash()` of names.
    """
    for key in (KEY, jax.random.key(KEY)):
        first, second = (_draw(subject, parameters(), key) for _ in range(2))
        _compare.equal("the second draw", second, first)


@check()
def keys_draw_differently(subject: Subject) -> None:
    """Two keys give different draws.

    Why: seeds are averaged over.
    Source: JAX docs, `jax.random`: different keys give independent draws.
    Fix: fold the whole key into the stream, not its first word.
    """
    first_word = jax.random.wrap_key_data(jnp.array([1, 0], jnp.uint32))
    ours = _draw(subject, parameters(), 0)
    for name, key in (("1", 1), ("[1, 0]", first_word)):
        theirs = _draw(subject, parameters(), key)
        _compare.different(f"the draw of key {name}", theirs, ours)


@check()
def leaves_draw_differently(subject: Subject) -> None:
    """Two leaves of one shape get different draws.

    Why: equal noise on all layers is one direction and not a sphere of them.
    Source: JAX docs, `jax.random`: a key is never used twice.
    Fix: fold the leaf's path into the key.
    """
    updates = _draw(subject, _twins())
    _compare.different("the draw of leaf b", updates["b"], updates["a"])


@check()
def steps_draw_differently(subject: Subject) -> None:
    """Two steps get different draws.

    Why: noise that repeats is a bias.
    Source: JAX docs, `jax.random`: a key is never used twice.
    Fix: fold the step into the key, or split the key that the state keeps.
    """
    gaps = [
        optax.tree.sub(
            _draw(subject, parameters(), 0, steps),
            _draw(subject, parameters(), 1, steps),
        )
        for steps in (1, 2)
    ]
    _compare.different("the draw of the second step", gaps[1], gaps[0])
    # One draw that a momentum carries on would be a multiple of itself.
    first, second = (jax.flatten_util.ravel_pytree(gap)[0] for gap in gaps)
    cosine = jnp.vdot(first, second) / jnp.sqrt(
        jnp.vdot(first, first) * jnp.vdot(second, second)
    )
    _compare.require(
        not abs(cosine) > 0.999,
        f"the draws of two steps: expected two directions, got a cosine of {cosine:.4}",
    )


@check("advice")
def partition_groups_draw_differently(subject: Subject) -> None:
    """With one key, two groups of `optax.partition` get different draws.

    Why: one seed for a whole optimizer is what users pass.
    Source: this suite (advice).
    Fix: fold the leaf's path into the key, not its number in the tree.
    """
    subject.needs("random")
    params = _twins()
    tx = optax.partition({name: subject.make() for name in "xy"}, {"a": "x", "b": "y"})
    grads = jax.tree.map(jnp.zeros_like, params)
    updates, _ = subject.update(tx, grads, tx.init(params), params)
    _compare.different("the draw of group y", updates["b"], updates["a"])


@check("advice")
def draws_do_not_depend_on_other_leaves(subject: Subject) -> None:
    """A leaf's draw stays when other leaves come or go.

    Why: masking or adding a layer should not change the noise of all others.
    Source: this suite (advice).
    Fix: fold the leaf's path into the key; do not split it by the number of leaves.
    """
    params = _twins()
    both = _draw(subject, params)
    for name, leaf in params.items():
        alone = _draw(subject, {name: leaf})
        _compare.equal("the draw", {name: both[name]}, alone, 1e-6)


@check()
def draws_do_not_depend_on_sharding(subject: Subject) -> None:
    """A leaf's draw is the same on one device and on many.

    Why: a run moves to another machine.
    Source: JAX docs, `jax_threefry_partitionable`: a draw does not depend on the
    sharding.
    Fix: number elements globally, and do not draw inside `shard_map`.
    """
    subject.needs("random")
    subject.needs_no_axis()
    own = shardings(AxisType.Auto)
    params = plain()
    draw = jax.jit(lambda params: _draw(subject, params), out_shardings=own)
    sharded = draw(jax.device_put(params, own))
    _compare.equal("the sharded draw", sharded, _draw(subject, params), 1e-6)


@check()
def callers_key_survives_donation(subject: Subject) -> None:
    """Donating the state leaves the caller's key usable, and `init` repeatable.

    Why: the key is used for the model and the data as well.
    Source: JAX docs, buffer donation: a donated buffer must not be used again.
    Fix: copy the key's words into the state (`jnp.array(jax.random.key_data(key))`).
    """
    subject.needs("random")
    key = jax.random.key(KEY)
    tx = subject.make(key=key)
    step = jax.jit(
        lambda state, params: subject.update(tx, params, state, params)[1],
        donate_argnums=0,
    )
    for _ in range(2):
        step(tx.init(parameters()), parameters())
    jax.random.normal(key)


@check()
def vmap_over_keys(subject: Subject) -> None:
    """`jax.vmap` over the key is the same as one run for each.

    Why: it is how seeds become one program.
    Source: `jax.vmap`, whose result is that of a loop over the members.
    Fix: take a traced key, and look at its dtype, not at its value.
    """
    subject.needs("random")
    keys = jax.random.split(jax.random.key(0), 2)
    batched = jax.jit(jax.vmap(lambda key: _draw(subject, parameters(), key)))(keys)
    for i in range(2):
        _compare.equal(
            f"the draw of key {i}",
            jax.tree.map(lambda x: x[i], batched),  # noqa: B023
            _draw(subject, parameters(), keys[i]),
            1e-6,
        )


@check("advice")
def keys_are_used_once(subject: Subject) -> None:
    """`jax.debug_key_reuse` finds no key that is used twice.

    Why: projects set it to find reuse in their own code.
    Source: this suite (advice).
    Fix: split or fold a key before every use.
    """
    subject.needs("random")
    with jax.debug_key_reuse(True):
        _draw(subject, parameters(), jax.random.key(KEY), steps=2)
