"""The transformation under check, with what several checks need of it."""

import functools
from collections.abc import Callable, Collection, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from optax_extras.testing import _axis
from optax_extras.testing._registry import NotApplicableError
from optax_extras.testing._spec import Spec, StepArguments

STEPS = 3
KEY = 7


class Steps(NamedTuple):
    """What a number of steps gave."""

    params: Any
    state: Any
    updates: Any  # of the last step


def random_like(tree: Any, seed: int, dtype: Any = None) -> Any:
    """Reproducible numbers in the shapes of a tree, whatever its other leaves are."""
    rng = np.random.default_rng(seed)

    def leaf(x: Any) -> jax.Array:
        own = np.dtype(x.dtype if dtype is None else dtype)
        values = rng.normal(size=x.shape)
        if jnp.issubdtype(own, jnp.complexfloating):
            values = values + 1j * rng.normal(size=x.shape)
        return jnp.asarray(values, own)

    return jax.tree.map(leaf, tree)


def parameters(dtype: Any = jnp.float32, seed: int = 0) -> dict[str, jax.Array]:
    """The plain tree of most checks: a matrix and a vector."""
    shapes = {"w": jnp.zeros((4, 2), dtype), "b": jnp.zeros(4, dtype)}
    return random_like(shapes, seed)  # type: ignore[no-any-return]


def gradients(params: Any, step: int, dtype: Any = None) -> Any:
    """The gradients of a step, of the size of one."""
    return random_like(params, 100 + step, dtype)


def _paraboloid(gradient: jax.Array, moved: jax.Array) -> jax.Array:
    """Re⟨gradient, moved⟩ + ‖moved‖² / 2."""
    slope = jnp.real(jnp.conj(gradient) * moved)
    return jnp.sum(slope + jnp.abs(moved) ** 2 / 2)


def other_value(value: float) -> float:
    """Another legal value of a hyperparameter."""
    return 0.95 * value or 0.01


def with_integers(
    state: Any, paths: Collection[Any], value: Callable[[int], int]
) -> Any:
    """A state with other integers at some paths: a function of their largest value."""

    def leaf(path: Any, x: Any) -> Any:
        if path not in paths:
            return x
        dtype = jnp.result_type(x)
        return jnp.array(value(np.iinfo(dtype).max), dtype)

    return jax.tree.map_with_path(leaf, state)


class Subject:
    """A `Spec`'s transformation; what several checks compute is computed once."""

    def __init__(self, spec: Spec):
        """Takes a spec."""
        self.spec = spec

    def supports(self, capability: str) -> bool:
        """Whether the spec declares a capability."""
        return capability in self.spec.supports

    def needs(self, capability: str) -> None:
        """Skips this check unless the spec declares `capability`."""
        if not self.supports(capability):
            raise NotApplicableError(f"the spec does not support {capability!r}")

    @property
    def hyperparameters(self) -> dict[str, float]:
        """The spec's hyperparameters; skips this check if there are none."""
        if not self.spec.hyperparameters:
            raise NotApplicableError("the spec names no hyperparameters")
        return dict(self.spec.hyperparameters)

    def make(self, **overrides: Any) -> optax.GradientTransformationExtraArgs:
        """The transformation, with some arguments replaced."""
        arguments = {**self.spec.hyperparameters, **overrides}
        if self.supports("random"):
            arguments = {"key": KEY, **arguments}
        tx = self.spec.make(**arguments)
        for part in ("init", "update"):
            if not callable(getattr(tx, part, None)):
                raise TypeError(
                    f"`make` of {self.spec.name} must return a transformation with"
                    f" `init` and `update`, got {tx!r}"
                )
        tx = optax.with_extra_args_support(tx)
        if self.spec.axis_name is None:
            return tx
        return _axis.bind(
            tx, self.spec.axis_name, self.spec.workers, self.spec.state_specs
        )

    def needs_no_axis(self) -> None:
        """Skips this check if the spec's transformation runs over a mapped axis."""
        if self.spec.axis_name is not None:
            raise NotApplicableError("it runs on the mesh of its axis")

    def acts_on_parts_of_the_tree(self) -> None:
        """Skips this check if an extra argument is a function of the whole tree."""
        if self.spec.extra_args is None:
            return
        arguments: Any = self._extra(parameters(), parameters(), 0)
        if any(map(callable, arguments.values())):
            raise NotApplicableError("its extra arguments are functions of all leaves")

    def update(
        self, tx: Any, grads: Any, state: Any, params: Any, step: Any = 0
    ) -> tuple[Any, Any]:
        """One update, with the extra arguments of the spec."""
        extra = self._extra(grads, params, step)
        return tx.update(grads, state, params, **extra)  # type: ignore[no-any-return]

    def _extra(self, grads: Any, params: Any, step: Any) -> Mapping[str, Any]:
        if self.spec.extra_args is None:
            return {}

        def value_fn(point: Any) -> jax.Array:
            """Has the value 1 and the gradient `grads` at `params`."""
            # Elementwise, as contractions need hints where shardings are explicit.
            terms = jax.tree.map(
                lambda g, x, p: None if g is None else _paraboloid(g, x - p),
                grads,
                point,
                params,
                is_leaf=lambda leaf: leaf is None,
            )
            return 1 + sum(jax.tree.leaves(terms), jnp.zeros(()))

        return self.spec.extra_args(
            StepArguments(
                value=value_fn(params),
                grad=grads,
                value_fn=value_fn,
                params=params,
                key=jax.random.fold_in(jax.random.key(0), step),
                step=step,
            )
        )

    def advance(
        self,
        params: Any,
        *,
        tx: Any = None,
        state: Any = None,
        start: int = 0,
        steps: int = STEPS,
        update: Callable[..., tuple[Any, Any]] | None = None,
    ) -> Steps:
        """Trains on the gradients of the steps from `start`, without `jit` of its own.

        `update(grads, state, params, step)` replaces the transformation's own.
        """
        tx = self.make() if tx is None else tx
        state = tx.init(params) if state is None else state
        update = functools.partial(self.update, tx) if update is None else update
        updates = None
        for step in range(start, start + steps):
            updates, state = update(gradients(params, step), state, params, step)
            params = optax.apply_updates(params, updates)
        return Steps(params, state, updates)

    def counters(self, state: Any) -> list[Any]:
        """Paths of the state's integers that every update makes larger by one.

        They are those that count on from half of their range as well, and so are not
        taken modulo a number.
        """
        paths = [
            path
            for path, leaf in jax.tree.leaves_with_path(state)
            if jnp.ndim(leaf) == 0
            and jnp.issubdtype(jnp.result_type(leaf), jnp.integer)
        ]
        paths = self._counting(state, paths, steps=1)
        paths = self._counting(state, paths, steps=2)
        late = with_integers(state, paths, lambda largest: largest // 2)
        return self._counting(late, paths, steps=1)

    def _counting(self, state: Any, paths: list[Any], steps: int) -> list[Any]:
        """Those paths whose integers are larger by one for each of some steps."""
        if not paths:
            return []
        run = self.advance(parameters(), state=state, steps=steps)
        before, after = (
            dict(jax.tree.leaves_with_path(tree)) for tree in (state, run.state)
        )
        return [p for p in paths if int(after[p]) - int(before[p]) == steps]

    @functools.cached_property
    def eager(self) -> list[Steps]:
        """The run on the plain tree without `jit`, after every step."""
        return self._path(functools.partial(self.update, self.make()))

    @functools.cached_property
    def compiled(self) -> list[Steps]:
        """The same with the compiled update."""
        return self._path(self.jitted)

    def _path(self, update: Callable[..., tuple[Any, Any]]) -> list[Steps]:
        params = parameters()
        if self.spec.axis_name is not None:  # the first step compiles for the workers
            params = _axis.replicate(params, self.spec.axis_name, self.spec.workers)
        run = Steps(params, self.make().init(params), None)
        path = []
        for step in range(STEPS):
            run = self.advance(
                run.params, state=run.state, start=step, steps=1, update=update
            )
            path.append(run)
        return path

    @functools.cached_property
    def traces(self) -> list[Any]:
        """Grows by one each time `jitted` is traced."""
        return []

    @functools.cached_property
    def jitted(self) -> Callable[..., tuple[Any, Any]]:
        """The update as one compiled function of (grads, state, params, step)."""
        tx = self.make()

        def update(grads: Any, state: Any, params: Any, step: Any) -> tuple[Any, Any]:
            self.traces.append(None)
            return self.update(tx, grads, state, params, step)

        return jax.jit(update)

    def scanned(self, length: int) -> tuple[Any, Any, Any]:
        """A `lax.scan` on the plain tree: final parameters, state, and all updates."""
        tx, params = self.make(), parameters()
        stacked = jax.tree.map(
            lambda *x: jnp.stack(x), *(gradients(params, t) for t in range(length))
        )

        def body(carry: Any, entry: Any) -> tuple[Any, Any]:
            params, state = carry
            grads, step = entry
            updates, state = self.update(tx, grads, state, params, step)
            return (optax.apply_updates(params, updates), state), updates

        steps = jnp.arange(length, dtype=jnp.int32)
        carry, updates = jax.lax.scan(body, (params, tx.init(params)), (stacked, steps))
        return (*carry, updates)
