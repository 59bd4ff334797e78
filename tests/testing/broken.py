"""For every check, a healthy transformation with one mistake that an author may make.

`BROKEN` has them by the name of the check; each must fail that check, and beside it
only its companions: the checks that cannot but see the same mistake.
"""

import collections
import dataclasses
import functools
import itertools
import zlib
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from optax_extras.testing import Spec

DECAY, NOISE = 0.5, 0.1
PLAIN = {"complex", "complex_as_real", "descent"}
RANDOM = {"complex", "descent", "random"}


class State(NamedTuple):
    """The state of `healthy`."""

    count: Any  # int32[]
    trace: Any  # like the parameters
    key: Any  # a key's words, or None without noise


def each(function, updates, *rest):
    """Maps over the leaves of updates, and passes None over."""
    return jax.tree.map(
        lambda u, *x: None if u is None else function(u, *x),
        updates,
        *rest,
        is_leaf=lambda x: x is None,
    )


def words_of(key):
    """A copy of a key's words."""
    key = jax.random.key(key) if isinstance(key, int) else key
    return jnp.array(jax.random.key_data(key))


def draw(key, leaf):
    """Noise in the shape, dtype and explicit sharding of a leaf."""
    sharding = jax.typeof(leaf).sharding
    explicit = jax.sharding.AxisType.Explicit in sharding.mesh.axis_types
    noise = jax.random.uniform(
        key, leaf.shape, minval=-1, out_sharding=sharding if explicit else None
    )
    return noise.astype(leaf.dtype)


def noise_like(words, count, tree, *, name=None, draw=draw):
    """Noise of a key, a step and the paths of leaves.

    `name(number, path, leaf)` replaces the path.
    """
    key = jax.random.fold_in(jax.random.wrap_key_data(words), count)
    leaves, structure = jax.tree.flatten_with_path(tree)
    noise = []
    for number, (path, leaf) in enumerate(leaves):
        label = name(number, path, leaf) if name else jax.tree_util.keystr(path)
        own = jax.random.fold_in(key, zlib.crc32(str(label).encode()))
        noise.append(draw(own, leaf))
    return structure.unflatten(noise)


def healthy(learning_rate, key=None, *, words=words_of, noise=noise_like):
    """SGD with momentum, and with noise if there is a key; it passes every check.

    Args:
      learning_rate: a number, an array or a schedule.
      key: an int or a typed key.
      words: from the key to what the state keeps of it.
      noise: from that, the count and a tree to noise in the tree's shapes.
    """

    def init(params):
        return State(
            count=jnp.zeros((), jnp.int32),
            trace=jax.tree.map(jnp.zeros_like, params),
            key=None if key is None else words(key),
        )

    def update(grads, state, params=None, **extra):
        del params, extra
        rate = learning_rate(state.count) if callable(learning_rate) else learning_rate

        def accumulate(g, m):
            wide = jnp.promote_types(m.dtype, jnp.float32)
            return (g.astype(wide) + DECAY * m.astype(wide)).astype(m.dtype)

        def step(g, m, n):
            wide = jnp.promote_types(g.dtype, jnp.float32)
            return (-rate * (m.astype(wide) + NOISE * n)).astype(g.dtype)

        trace = jax.tree.map(
            lambda g, m: m if g is None else accumulate(g, m),
            grads,
            state.trace,
            is_leaf=lambda x: x is None,
        )
        if key is None:
            drawn = each(lambda g: 0.0, grads)
        else:
            drawn = noise(state.key, state.count, grads)
        count = optax.safe_increment(state.count)
        return each(step, grads, trace, drawn), State(count, trace, state.key)

    return optax.GradientTransformationExtraArgs(init, update)


@dataclasses.dataclass(frozen=True)
class Broken:
    """A broken transformation.

    Attributes:
      spec: how the suite gets it.
      message: what the check's message has in it.
      companions: the other checks that it fails.
    """

    spec: Spec
    message: str
    companions: frozenset[str]


BROKEN: dict[str, Broken] = {}


def breaks(
    check: str,
    message: str,
    *companions: str,
    supports=PLAIN,
    hyperparameters: Mapping[str, float] | None = None,
    **limits: float,
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Registers a factory of a transformation that breaks a check."""

    def register(make):
        spec = Spec(
            check,
            make,
            hyperparameters=hyperparameters or {"learning_rate": 0.1},
            schedules=["learning_rate"],
            supports=supports,
            **limits,
        )
        BROKEN[check] = Broken(spec, message, frozenset(companions))
        return make

    return register


def mistake(check: str, message: str, *companions: str, **options: Any):
    """Registers a function that spoils a healthy transformation."""

    def register(spoil):
        breaks(check, message, *companions, **options)(lambda **x: spoil(healthy(**x)))
        return spoil

    return register


def after(tx, function):
    """Replaces the updates by `function(updates, grads, state, params)`."""

    def update(grads, state, params=None, **extra):
        updates, new = tx.update(grads, state, params, **extra)
        return function(updates, grads, state, params), new

    return optax.GradientTransformationExtraArgs(tx.init, update)


def leafwise(tx, function):
    """Replaces the update u of a gradient g by `function(u, g)` of u's dtype."""
    return after(
        tx,
        lambda updates, grads, state, params: each(
            lambda u, g: function(u, g).astype(u.dtype), updates, grads
        ),
    )


def with_params(tx, function):
    """Replaces the update u of a parameter p by `function(u, p)` of u's dtype."""

    def change(updates, grads, state, params):
        if params is None:
            raise ValueError("`params` are needed")
        return each(lambda u, p: function(u, p).astype(u.dtype), updates, params)

    return after(tx, change)


class Remembering(NamedTuple):
    """A state with a memory beside it."""

    inner: Any
    memory: Any


def remembering(tx, start, change=lambda memory, grads: memory):
    """Adds a memory to the state: `start(params)`, then `change(memory, grads)`."""

    def init(params):
        return Remembering(tx.init(params), start(params))

    def update(grads, state, params=None, **extra):
        updates, inner = tx.update(grads, state.inner, params, **extra)
        return updates, Remembering(inner, change(state.memory, grads))

    return optax.GradientTransformationExtraArgs(init, update)


def buffers(tx, function):
    """Replaces the new buffer m of a gradient g by `function(m, g)`."""

    def update(grads, state, params=None, **extra):
        updates, new = tx.update(grads, state, params, **extra)
        trace = jax.tree.map(
            lambda g, m: m if g is None else function(m, g),
            grads,
            new.trace,
            is_leaf=lambda x: x is None,
        )
        return updates, new._replace(trace=trace)

    return optax.GradientTransformationExtraArgs(tx.init, update)


def cast(tx, old, new):
    """Makes updates of one dtype those of another."""
    return after(
        tx,
        lambda updates, *_: each(
            lambda u: u.astype(new) if u.dtype == old else u, updates
        ),
    )


def traced(*trees):
    """Whether trees have a leaf that is traced."""
    return any(isinstance(x, jax.core.Tracer) for x in jax.tree.leaves(trees))


# Structure


@mistake("state_is_a_fixed_point", "at .memory: expected a dtype of its own")
def weakly_typed(tx):
    """A number of the state has no dtype of its own."""
    return remembering(tx, lambda params: jnp.asarray(0.0))


@mistake(
    "updates_match_parameters",
    "at ['b']: expected float32[4], got bfloat16[4]",
    "cond_takes_or_leaves_a_step",  # the other branch returns float32
    "apply_if_finite",  # likewise
    "float64",  # it looks at float32 parameters as well
    supports={"descent"},
)
def half_a_bias(tx):
    """The bias of a layer gets a bfloat16 update."""

    def change(updates, *_):
        def halved(u):
            small = u.ndim == 1 and u.dtype == jnp.float32
            return u.astype(jnp.bfloat16) if small else u

        layer = len(jax.tree.leaves(updates)) == 2
        return each(halved, updates) if layer else updates

    return after(tx, change)


@mistake("state_holds_plain_arrays", "the initial state at .count")
def number_as_count(tx):
    """The counter starts as a number."""

    def init(params):
        return tx.init(params)._replace(count=np.int32(0))

    return optax.GradientTransformationExtraArgs(init, tx.update)


@mistake("init_accepts_abstract_values", "at .memory: expected a leaf")
def first_look(tx):
    """The state has a number only where the parameters can be read."""
    return remembering(tx, lambda params: None if traced(params) else jnp.zeros(()))


@mistake("init_is_reusable", "the state of a second `init` at .memory: expected [0]")
def numbered(tx):
    """Each state has a number of its own."""
    numbers = itertools.count()
    return remembering(tx, lambda params: jnp.int32(next(numbers)))


@mistake("pure", "the arguments after the call")
def in_place(tx):
    """Gradients are scaled where they lie."""

    def update(grads, state, params=None, **extra):
        if isinstance(grads, dict):
            grads.update(each(lambda g: g / jnp.max(jnp.abs(g), initial=1.0), grads))
        return tx.update(grads, state, params, **extra)

    return optax.GradientTransformationExtraArgs(tx.init, update)


@mistake("missing_params_raise_clearly", "expected a ValueError or TypeError that")
def parameters_taken_for_granted(tx):
    """Updates are cast to the dtypes of parameters that may be missing."""
    return after(
        tx,
        lambda updates, grads, state, params: each(
            lambda u, p: u.astype(p.dtype), updates, params
        ),
    )


@mistake("unknown_extra_arguments_are_accepted", "'meant_for_another_stage'")
def strict_arguments(tx):
    """An argument that it does not know is an error."""

    def update(grads, state, params=None, **extra):
        if extra:
            raise TypeError(f"unknown arguments: {list(extra)}")
        return tx.update(grads, state, params)

    return optax.GradientTransformationExtraArgs(tx.init, update)


class Renamed(NamedTuple):
    """A state whose counter has another name."""

    steps: Any
    trace: Any


@mistake("count_can_be_read_and_set", "finds none")
def counter_of_another_name(tx):
    """The counter is called `steps`."""

    def init(params):
        return Renamed(*tx.init(params)[:2])

    def update(grads, state, params=None, **extra):
        updates, new = tx.update(grads, State(*state, None), params, **extra)
        return updates, Renamed(*new[:2])

    return optax.GradientTransformationExtraArgs(init, update)


class Box:
    """A container of one array that refuses some."""

    def __init__(self, value):
        """Checks the array, also when JAX rebuilds the container."""
        if self.refuses(value):
            raise TypeError(f"{type(self).__name__} cannot hold {value}")
        self.value = value

    def tree_flatten(self):
        """Gives the array."""
        return (self.value,), None

    @classmethod
    def tree_unflatten(cls, auxiliary, children):
        """Takes it back."""
        return cls(*children)


@jax.tree_util.register_pytree_node_class
class Vector(Box):
    """Holds no 0-d array."""

    def refuses(self, value):
        """Looks at the number of axes."""
        return getattr(value, "ndim", 1) == 0


@jax.tree_util.register_pytree_node_class
class Wide(Box):
    """Holds no bfloat16."""

    def refuses(self, value):
        """Looks at the dtype."""
        return getattr(value, "dtype", None) == jnp.bfloat16


@mistake("tree_norm_of_state", "Vector cannot hold")
def container_of_vectors(tx):
    """The state has a container that cannot hold the norm of what is in it."""
    return remembering(tx, lambda params: Vector(jnp.zeros(2)))


@mistake("tree_cast_of_state", "Wide cannot hold")
def container_of_wide_numbers(tx):
    """The state has a container that cannot hold half precision."""
    return remembering(tx, lambda params: Wide(jnp.zeros(2)))


@mistake("tree_map_params_of_state", "structure")
def leafless(tx):
    """The state is another one where the parameters have no leaf."""
    return remembering(
        tx, lambda params: jnp.zeros(()) if jax.tree.leaves(params) else None
    )


# Trees


@mistake("containers", "tuple")
def pairs_of_results(tx):
    """Pairs are told from containers by being pairs."""

    def change(updates, grads, state, params):
        pairs = each(lambda u, g: (u, g), updates, grads)
        return jax.tree.map(
            lambda pair: pair[0],
            pairs,
            is_leaf=lambda x: isinstance(x, tuple) and len(x) == 2,
        )

    return after(tx, change)


@mistake("a_single_array", "(2, 4)")
def turned(tx):
    """A tall matrix alone is turned, and not turned back."""

    def change(updates, *_):
        matrix = isinstance(updates, jax.Array) and updates.ndim == 2
        tall = matrix and updates.shape[0] > updates.shape[1]
        return updates.T if tall else updates

    return after(tx, change)


@mistake("scalar_leaf", "at ['s']: expected float32[], got bfloat16[]")
def half_a_scalar(tx):
    """0-d updates are bfloat16."""
    return after(
        tx,
        lambda updates, *_: each(
            lambda u: u if u.ndim else u.astype(jnp.bfloat16), updates
        ),
    )


@mistake("zero_size_leaf", "zero-size array")
def largest_of_none(tx):
    """A leaf with an infinite gradient is left out, by its largest element."""
    return leafwise(
        tx, lambda u, g: jnp.where(jnp.isfinite(jnp.max(jnp.abs(g))), u, 0 * u)
    )


@mistake("empty_tree", "Need at least one array to stack")
def stack_of_none(tx):
    """One array is made of what is known of each leaf."""

    def change(updates, grads, state, params):
        finite = jnp.stack([jnp.isfinite(g).all() for g in jax.tree.leaves(grads)])
        return each(lambda u: jnp.where(finite.all(), u, 0 * u), updates)

    return after(tx, change)


@mistake("none_leaf_in_parameters", "the updates at ['b']: expected")
def share_of_leaves(tx):
    """The rate is shared among leaves, and None is counted as one."""

    def change(updates, grads, state, params):
        trained = len(jax.tree.leaves(state.trace))
        entries = jax.tree.leaves(state.trace, is_leaf=lambda x: x is None)
        return each(lambda u: u * (trained / max(1, len(entries))), updates)

    return after(tx, change)


@mistake("none_gradient", "None")
def gradient_for_every_leaf(tx):
    """Updates are mapped together with a buffer, as if no gradient were missing."""
    return after(
        tx,
        lambda updates, grads, state, params: jax.tree.map(
            lambda u, m: u + 0 * m, updates, state.trace
        ),
    )


# Compilation


def third_step(tx, factor):
    """Scales the third step where the gradients are not traced."""

    def change(updates, grads, state, params):
        if traced(grads):
            return updates
        return each(lambda u: jnp.where(state.count == 2, factor * u, u), updates)

    return after(tx, change)


@mistake(
    "jit_equals_eager",
    "at [2]['b']: expected",
    # They compile the third step as well, and compare it with the eager one.
    "scan_equals_loop",
    "loop_length_does_not_matter",
    "donation",
)
def third_step_if_it_is_not_compiled(tx):
    """The third step is halved, but not where the gradients are traced."""
    return third_step(tx, 0.5)


@mistake("no_retrace", "expected one trace in 3 steps, got 2")
def number_that_can_be_read(tx):
    """A number of the first state has a dtype of its own only if it is traced."""

    def start(params):
        return jnp.zeros(()) if traced(params) else jnp.asarray(0.0)

    return remembering(tx, start, lambda memory, grads: memory + jnp.zeros(()))


LAST: list[Any] = []


@mistake("no_tracer_leaks", "Leaked")
def last_count(tx):
    """The last count is kept in a list."""

    def change(updates, grads, state, params):
        LAST[:] = [state.count]
        return updates

    return after(tx, change)


@breaks(
    "hyperparameters_may_be_arrays",
    "TracerBoolConversionError",
    "vmap_over_hyperparameters",  # it traces them as well
)
def validated(learning_rate):
    """The value of the rate is checked in Python."""
    if not callable(learning_rate) and learning_rate < 0:
        raise ValueError(f"`learning_rate` must not be negative, got {learning_rate}")
    return healthy(learning_rate)


def on_host(x):
    """A number that NumPy has looked at; it cannot be mapped over."""
    return jax.pure_callback(np.asarray, jax.ShapeDtypeStruct((), x.dtype), x)


@breaks("vmap_over_hyperparameters", "vmap")
def rate_on_host(learning_rate):
    """A rate that is an array makes a way over the host."""
    if isinstance(learning_rate, jax.Array):
        learning_rate = on_host(learning_rate)
    return healthy(learning_rate)


@mistake("vmap_over_parameters", "vmap")
def total_on_host(tx):
    """What the parameters add up to makes a way over the host if it is traced."""

    def start(params):
        total = jnp.zeros((), jnp.float32)
        for p in jax.tree.leaves(params):
            total += jnp.sum(jnp.abs(p)).astype(jnp.float32)
        return on_host(total) if traced(params) else total

    return remembering(tx, start)


@mistake("scan_equals_loop", "the state at .memory: expected [0.], got [1.]")
def note_of_tracing(tx):
    """The state tells whether the step was traced."""
    return remembering(
        tx,
        lambda params: jnp.zeros((), jnp.float32),
        lambda memory, grads: jnp.float32(traced(grads)),
    )


@mistake(
    "loop_length_does_not_matter",
    "the updates of step 2 at ['b']: expected",
    # What a scan traces, `jit` does; the error is too small for the parameters.
    "jit_equals_eager",
)
def third_step_a_little_longer(tx):
    """The third step is a little longer, but not where the gradients are traced."""
    return third_step(tx, 1.0003)


@mistake("cond_takes_or_leaves_a_step", "the updates of a step taken at ['b']")
def dry_run(tx):
    """Traced gradients without traced parameters are taken for a dry run."""

    def change(updates, grads, state, params):
        dry = traced(grads) and not traced(params)
        return each(lambda u: 0 * u if dry else u, updates)

    return after(tx, change)


@mistake(
    "donation",
    "donate",
    "state_owns_its_buffers",  # what is not copied is donated twice
)
def first_parameters(tx):
    """The first parameters are kept, but not copied."""
    return remembering(tx, lambda params: params)


@mistake("state_owns_its_buffers", "after step 0 at .memory['b']: expected an array of")
def last_gradient(tx):
    """The last gradient is kept, but not copied."""

    def keep(memory, grads):
        return jax.tree.map(
            lambda m, g: m if g is None else g.astype(m.dtype),
            memory,
            grads,
            is_leaf=lambda x: x is None,
        )

    return remembering(tx, optax.tree.zeros_like, keep)


# Wrappers


class Doubling(optax.GradientTransformationExtraArgs):
    """Overrides `update`, but the tuple keeps the one that it was made of."""

    def update(self, grads, state, params=None, **extra):
        """Doubles the updates."""
        updates, new = self[1](grads, state, params, **extra)
        return each(lambda u: 2 * u, updates), new


@mistake("chain", "the updates at ['b']: expected")
def overridden(tx):
    """The class of the transformation overrides a field, which a chain unpacks."""
    return Doubling(*tx)


@mistake("masked", "the update inside at ['w']: expected")
def share_of_entries(tx):
    """The rate is shared among the entries of a dictionary, masked or not."""

    def change(updates, *_):
        if not isinstance(updates, dict):
            return updates
        entries = sum(u is not None for u in updates.values())
        return each(lambda u: u / entries, updates)

    return after(tx, change)


@mistake(
    "partition",
    "'MaskedNode' object has no attribute",
    "masked",  # a partition is made of masks
)
def dtypes_of_entries(tx):
    """Every entry of a dictionary is taken for an array."""

    def change(updates, *_):
        if not isinstance(updates, dict):
            return updates
        return {k: u if u is None else u.astype(u.dtype) for k, u in updates.items()}

    return after(tx, change)


@mistake("multi_steps", "`parameters` are needed")
def argument_of_another_name(tx):
    """The argument is not called `params`, by which it may be passed."""

    def update(updates, state, parameters=None, **extra):
        if parameters is None:
            raise ValueError("`parameters` are needed")
        return tx.update(updates, state, parameters, **extra)

    return optax.GradientTransformationExtraArgs(tx.init, update)


@mistake("apply_if_finite", "the updates after a NaN at ['b']: expected")
def once_bitten(tx):
    """A variable outside of the state remembers that there was a NaN."""
    bad = []

    def change(updates, grads, state, params):
        if not traced(grads):
            bad.extend(g for g in jax.tree.leaves(grads) if np.isnan(g).any())
        return each(lambda u: 0 * u if bad else u, updates)

    return after(tx, change)


@mistake("flatten", "cannot reshape array of shape (4, 3)")
def folded(tx):
    """A vector alone is folded in four if it can be, and never unfolded."""

    def change(updates, *_):
        vector = isinstance(updates, jax.Array) and updates.ndim == 1
        return updates.reshape(4, -1) if vector and updates.size % 4 == 0 else updates

    return after(tx, change)


@breaks("inject_hyperparams", "the updates at ['b']: expected")
def array_taken_for_a_schedule(learning_rate):
    """A rate that is an array falls from the third step on."""
    if not isinstance(learning_rate, jax.Array):
        return healthy(learning_rate)
    return healthy(lambda count: learning_rate * jnp.where(count < 2, 1.0, 0.99))


@breaks(
    "inject_hyperparams_on_bfloat16",
    "got [nan",
    hyperparameters={"learning_rate": 0.1, "decay": 0.999},
)
def difference_from_one(learning_rate, decay):
    """The updates are divided by 1 − decay, which bfloat16 makes 0."""
    tx = healthy(learning_rate)
    return leafwise(tx, lambda u, g: u * ((1 - decay) / (1 - decay)))


@breaks(
    "inject_float32_hyperparams_on_bfloat16",
    "at ['b']: expected bfloat16[4], got float32[4]",
)
def widened_by_the_rate(learning_rate):
    """The rate is multiplied with at the end, and the product is not cast."""

    def change(updates, grads, state, params):
        rate = learning_rate(state.count) if callable(learning_rate) else learning_rate
        return each(lambda u: rate * u, updates)

    return after(healthy(1.0), change)


@breaks("injected_hyperparameters_take_effect", "with learning_rate = 0.095 at ['b']")
def rate_of_the_start(learning_rate):
    """A rate that is an array is read when the state is made."""
    tx = healthy(learning_rate)
    if not isinstance(learning_rate, jax.Array):
        return remembering(tx, lambda params: jnp.zeros((), jnp.float32))

    def update(grads, state, params=None, **extra):
        updates, inner = healthy(state.memory).update(grads, state.inner)
        return updates, Remembering(inner, state.memory)

    start = remembering(tx, lambda params: jnp.array(learning_rate, jnp.float32))
    return optax.GradientTransformationExtraArgs(start.init, update)


# Dtypes


@mistake("bfloat16", "the state at .trace['b']: expected bfloat16[4], got float32[4]")
def widened_buffer(tx):
    """A bfloat16 buffer becomes float32."""
    return buffers(
        tx, lambda m, g: m.astype(jnp.float32) if g.dtype == jnp.bfloat16 else m
    )


@mistake("float16", "the updates at ['b']: expected float16[4], got float32[4]")
def widened_updates(tx):
    """float16 updates become float32."""
    return cast(tx, jnp.float16, jnp.float32)


@mistake("float64", "the updates at ['b']: expected float64[4], got float32[4]")
def narrowed_updates(tx):
    """float64 updates become float32."""
    return cast(tx, jnp.float64, jnp.float32)


@mistake(
    "gradients_of_another_dtype",
    "the state at .trace['b']: expected bfloat16[4], got float32[4]",
)
def buffer_like_the_gradient(tx):
    """Buffers get the dtype of the gradient."""
    return buffers(tx, lambda m, g: m.astype(g.dtype))


@mistake("strict_dtype_promotion", "TypePromotionError")
def integers_in_arithmetic(tx):
    """The count is multiplied with a float32 number."""

    def change(updates, grads, state, params):
        scale = 1 / (1 + state.count * jnp.float32(0.01))
        return each(lambda u: (u * scale).astype(u.dtype), updates)

    return after(tx, change)


@mistake("strict_rank_promotion", "(4, 2) (2,)", supports={"complex", "descent"})
def mean_of_columns(tx):
    """A row is subtracted from a matrix."""
    return leafwise(tx, lambda u, g: u - u.mean(axis=0) / 10 if u.ndim == 2 else u)


@mistake(
    "complex_numbers",
    "the updates at ['b']: expected complex64[4], got float32[4]",
    supports={"complex", "descent"},
)
def real_part(tx):
    """Updates lose their imaginary part."""
    return after(tx, lambda updates, *_: each(jnp.real, updates))


@mistake("complex_equals_its_real_view", "the updates of step 0, as real numbers")
def clipped_by_magnitude(tx):
    """Complex numbers are clipped by their magnitude."""
    return leafwise(tx, lambda u, g: u / jnp.maximum(1, 20 * jnp.abs(u)))


# Extremes


@mistake(
    "zero_gradients", "step 0, on float32 gradients times 0, at ['b']: expected finite"
)
def divided_by_the_gradient(tx):
    """A float32 update is multiplied with the size of the gradient, and divided."""
    return leafwise(
        tx,
        lambda u, g: u * jnp.abs(g) / jnp.abs(g) if g.dtype == jnp.float32 else u,
    )


@mistake("zero_gradients_in_half_precision", "on float16 gradients times 0")
def epsilon_that_is_zero(tx):
    """The epsilon is 0 in float16."""
    return leafwise(tx, lambda u, g: u * (jnp.abs(g) / (jnp.abs(g) + 1e-8)))


@mistake("zero_parameters", "step 0, on float32 gradients times 1, at ['b']")
def trust_ratio(tx):
    """The size of a parameter is divided by without a guard."""

    def change(u, p):
        size = jnp.sum(jnp.abs(p))
        return u * (size / size)

    return with_params(tx, change)


@mistake("huge_gradients", "on float32 gradients times 1e+15")
def fourth_power(tx):
    """Fourth powers are multiplied with before they are divided by."""

    def change(u, g):
        power = 1 + jnp.abs(g) ** 4
        return u * power / power

    return leafwise(tx, change)


@mistake("tiny_gradients", "on float32 gradients times 1e-25")
def square_that_is_zero(tx):
    """Zeros are guarded, but not squares that become zero."""

    def change(u, g):
        square = jnp.where(g == 0, 1, g * g)
        return u * (square / square)

    return leafwise(tx, change)


@mistake("count_at_its_end", "at .count: expected 2147483647, got -2147483648")
def counter_that_wraps(tx):
    """The counter goes on after its largest number."""

    def update(grads, state, params=None, **extra):
        updates, new = tx.update(grads, state, params, **extra)
        return updates, new._replace(count=state.count + 1)

    return optax.GradientTransformationExtraArgs(tx.init, update)


# Sharding


@mistake("sharding_is_kept", "the initial state at .memory['b']: expected")
def replicated_buffer(tx):
    """A buffer is on one device, wherever the parameter is."""
    return remembering(
        tx,
        lambda params: jax.tree.map(lambda p: jnp.zeros(p.shape, p.dtype), params),
    )


@mistake("many_devices_equal_one", "the parameters at ['b']: expected")
def rate_for_each_device(tx):
    """Updates are divided by the devices, as if they were summed over them."""

    def change(updates, *_):
        mesh = jax.sharding.get_abstract_mesh()
        devices = 1
        for kind, size in zip(mesh.axis_types, mesh.axis_sizes, strict=True):
            devices *= size if kind == jax.sharding.AxisType.Auto else 1
        return each(lambda u: u / devices, updates)

    return after(tx, change)


@mistake("scan_inside_shard_map", "carry")
def buffer_of_a_shape(tx):
    """Buffers are made of shape, dtype and sharding, and so do not vary as p does."""

    def init(params):
        return tx.init(params)._replace(
            trace=jax.tree.map(
                lambda p: jnp.zeros(
                    p.shape, p.dtype, device=None if traced(p) else p.sharding
                ),
                params,
            )
        )

    return optax.GradientTransformationExtraArgs(init, tx.update)


@mistake("explicit_sharding", "shard")
def norm_by_a_contraction(tx):
    """The norm of a leaf is a product of vectors, which needs to know its sharding."""
    return leafwise(tx, lambda u, g: jnp.where(jnp.isfinite(jnp.vdot(u, u)), u, 0 * u))


# Restoring


@breaks(
    "restored_from_arrays",
    "PRNGKey dtype cannot be converted",
    # Nothing but a typed key is refused by `np.savez`, and these refuse one too.
    "state_holds_plain_arrays",
    "tree_norm_of_state",
    "tree_cast_of_state",
    supports=RANDOM,
)
def typed_key(learning_rate, key):
    """The state has a typed key."""
    return healthy(
        learning_rate,
        key,
        words=lambda key: jax.random.wrap_key_data(words_of(key)),
        noise=lambda key, *rest: noise_like(jax.random.key_data(key), *rest),
    )


@functools.cache
def local_class():
    """A class that pickle cannot find."""

    class Local(NamedTuple):
        inner: Any

    return Local


@mistake("restored_from_pickle", "Local")
def class_in_a_function(tx):
    """The state's class is defined in a function."""

    def init(params):
        return local_class()(tx.init(params))

    def update(grads, state, params=None, **extra):
        updates, inner = tx.update(grads, state.inner, params, **extra)
        return updates, local_class()(inner)

    return optax.GradientTransformationExtraArgs(init, update)


@mistake("restored_from_orbax", "zero size")
def array_of_nothing(tx):
    """The state has an array without elements, which orbax refuses."""
    return remembering(tx, lambda params: jnp.zeros((0,)))


# Randomness


def noisy(check: str, message: str, *companions: str):
    """Registers a function that gives other parts to the healthy random one."""

    def register(parts):
        def make(learning_rate, key):
            return healthy(learning_rate, key, **parts(key))

        return breaks(check, message, *companions, supports=RANDOM)(make)

    return register


USED: collections.Counter[bytes] = collections.Counter()


@noisy("same_key_same_draw", "the second draw at ['b']: expected")
def key_used_before(key):
    """A typed key that was used before gives other words."""

    def words(key):
        words = words_of(key)
        if not isinstance(key, int) and not traced(key):
            used = np.asarray(words).tobytes()
            words += np.uint32(USED[used])
            USED[used] += 1
        return words

    return {"words": words}


@noisy("keys_draw_differently", "the draw of key 1 at ['b']: expected other")
def seed_times_step(key):
    """The first step multiplies the seed with 0."""
    return {
        "noise": lambda words, count, tree: noise_like(
            words * count.astype(jnp.uint32), count, tree
        )
    }


@noisy(
    "leaves_draw_differently",
    "the draw of leaf b at the root: expected other numbers",
    "partition_groups_draw_differently",  # its groups have leaves of one shape
)
def named_by_shape(key):
    """Leaves are told apart by their shapes."""
    return {
        "noise": functools.partial(
            noise_like, name=lambda number, path, leaf: leaf.shape
        )
    }


@noisy("steps_draw_differently", "the draw of the second step at ['b']: expected other")
def one_draw_for_all_steps(key):
    """The step is not folded into the key."""
    return {"noise": lambda words, count, tree: noise_like(words, 0 * count, tree)}


@noisy(
    "partition_groups_draw_differently",
    "the draw of group y at the root: expected other numbers",
    "draws_do_not_depend_on_other_leaves",  # the number of a leaf does
)
def named_by_number(key):
    """Leaves are told apart by their numbers."""
    return {
        "noise": functools.partial(noise_like, name=lambda number, path, leaf: number)
    }


@noisy("draws_do_not_depend_on_other_leaves", "the draw at ['a']: expected")
def key_for_so_many_leaves(key):
    """The number of leaves is part of the key."""
    return {
        "noise": lambda words, count, tree: noise_like(
            words + np.uint32(len(jax.tree.leaves(tree))), count, tree
        )
    }


@noisy("draws_do_not_depend_on_sharding", "the sharded draw at ['b']: expected")
def key_for_each_device(key):
    """Where it is compiled, what can be shared among the devices is drawn in parts."""

    def draw_parts(key, leaf):
        devices = jax.device_count()
        if not traced(leaf) or leaf.ndim == 0 or leaf.shape[0] % devices:
            return draw(key, leaf)
        part = jnp.zeros((leaf.shape[0] // devices, *leaf.shape[1:]), leaf.dtype)
        keys = jax.random.split(key, devices)
        return jnp.concatenate([draw(key, part) for key in keys])

    return {"noise": functools.partial(noise_like, draw=draw_parts)}


@noisy("callers_key_survives_donation", "deleted")
def key_that_is_not_copied(key):
    """The words of a typed key are the caller's own."""
    return {
        "words": lambda key: (
            words_of(key) if isinstance(key, int) else jax.random.key_data(key)
        )
    }


@noisy("vmap_over_keys", "TracerBoolConversionError")
def key_of_zeros(key):
    """A key of zeros is refused, by a look at its value."""
    if not isinstance(key, int) and not jax.random.key_data(key).any():
        raise ValueError("`key` must not be zero")
    return {}


@noisy("keys_are_used_once", "KeyReuseError")
def two_draws_of_one_key(key):
    """Two draws use one key."""
    return {
        "noise": functools.partial(
            noise_like,
            draw=lambda key, leaf: draw(key, leaf) + draw(key, leaf) / 2,
        )
    }


# Semantics


@mistake("descends_a_parabola", "the loss after 100 steps: expected less than")
def odd_vector(tx):
    """A vector that cannot be halved does not move."""
    return leafwise(tx, lambda u, g: 0 * u if u.ndim == 1 and u.size % 2 else u)


@mistake("descends_rosenbrock", "the loss after 100 steps: expected less than")
def pair_taken_for_complex(tx):
    """A pair is taken for a complex number, and turned."""
    return leafwise(
        tx, lambda u, g: u[::-1] * jnp.array([-1, 1]) if u.shape == (2,) else u
    )


@mistake(
    "descends_a_matrix_factor",
    "the loss after 100 steps: expected less than",
    supports={"complex", "descent"},
)
def wide_matrix(tx):
    """A wide matrix gets the wrong sign."""
    return leafwise(
        tx, lambda u, g: -u if u.ndim == 2 and u.shape[0] < u.shape[1] else u
    )


@mistake("descends_a_mixed_tree", "the loss after 100 steps: expected less than")
def scalar_of_wrong_sign(tx):
    """A scalar gets the wrong sign."""
    return leafwise(tx, lambda u, g: u if u.ndim else -u)


@mistake("leaf_order_does_not_matter", "the updates of step 0 at ['a']: expected")
def rate_by_number(tx):
    """Later leaves move faster."""

    def change(updates, *_):
        leaves, structure = jax.tree.flatten(updates)
        return structure.unflatten([u * (1 + i / 4) for i, u in enumerate(leaves)])

    return after(tx, change)


@mistake("learning_rate_of_zero_does_nothing", "the parameters at ['b']: expected")
def decay_beside_the_rate(tx):
    """Parameters decay at a rate of their own."""
    return with_params(tx, lambda u, p: u - p / 100)


@breaks("constant_schedule_equals_constant", "with learning_rate as a schedule at")
def schedule_of_a_factor(learning_rate):
    """A schedule is taken for a factor of half the rate."""
    if callable(learning_rate):
        return healthy(lambda count: learning_rate(count) / 2)
    return healthy(learning_rate)


# Budget


@mistake(
    "state_bytes", "state: expected at most 5 B per parameter, got 8", max_state_bytes=5
)
def second_buffer(tx):
    """The state has two buffers."""
    return remembering(tx, optax.tree.zeros_like)


@mistake(
    "temporary_bytes",
    "temporaries: expected at most 1 B per parameter, got",
    max_temporary_bytes=1,
)
def sorted_leaf(tx):
    """A large leaf is sorted to find its largest element."""

    def change(u, g):
        if u.size < 2**14:
            return u
        return jnp.minimum(u, jnp.sort(u, axis=None)[-1])

    return leafwise(tx, change)


# Machine


@mistake("any_order_of_events", "the parameters at ['b']: expected")
def fourth_step_if_it_can_be_read(tx):
    """From the fourth step on updates are halved, where the count is no tracer."""

    def change(updates, grads, state, params):
        late = not traced(grads, state) and int(state.count) >= 3
        return each(lambda u: u / 2 if late else u, updates)

    return after(tx, change)
