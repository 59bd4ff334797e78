"""Every transformation under the public suite, and the rules of this library alone."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from optax_extras.testing import parametrize_checks

from specs import SPECS

PARAMS = {"w": jnp.ones((4, 3)), "b": [jnp.ones(2)]}


@parametrize_checks(SPECS, slow=True)
def test_conformance(check):
    check()


def make(spec):
    key = {"key": 7} if "random" in spec.supports else {}
    return spec.make(**spec.hyperparameters, **key)


@pytest.fixture(params=SPECS, ids=lambda spec: spec.name)
def tx(request):
    """Each transformation in turn."""
    return make(request.param)


@pytest.mark.parametrize(
    "bad", [jnp.zeros((4, 3), int), jnp.zeros((4, 3), bool), np.zeros((4, 3), "V")]
)
def test_integer_leaves_raise(tx, bad):
    if bad.dtype.kind == "V":
        bad = np.zeros((4, 3), jax.dtypes.float0)
    with pytest.raises(TypeError, match=r"floating-point or complex.*'w'"):
        tx.update({**PARAMS, "w": bad}, tx.init(PARAMS), PARAMS)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"w": None}, None),
        ({"extra": jnp.ones(2)}, r"'extra'\] is only in `updates`"),
        ({"w": jnp.ones((2, 3))}, r"\(2, 3\) at \['w'\]"),
        ({"b": (jnp.ones(2),)}, "must have the structure"),
    ],
)
def test_structure_mismatch_raises(tx, change, message):
    state = tx.init(PARAMS)
    if not any(leaf.shape == (4, 3) for leaf in jax.tree.leaves(state)):
        pytest.skip("its state is not shaped like the parameters")
    grads = {**PARAMS, **change}
    if message is None:
        del grads["w"]
        message = r"'w'\] is only in the state"
    with pytest.raises(ValueError, match=message):
        tx.update(grads, state, PARAMS)


def test_none_gradients_leave_buffers_alone(tx):
    _, state = tx.update(PARAMS, tx.init(PARAMS), PARAMS)
    _, after = tx.update({**PARAMS, "w": None}, state, PARAMS)
    for name in ("trace", "velocity", "mu", "nu", "previous"):
        before = optax.tree.get_all_with_path(state, name)
        now = optax.tree.get_all_with_path(after, name)
        for (_, old), (_, new) in zip(before, now, strict=True):
            np.testing.assert_array_equal(new["w"], old["w"])
