"""Every transformation under the public suite, and the rules of this library alone."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from optax_extras.testing import CHECKS, parametrize_checks

from specs import CHECKS_OF, collect, factories, spec

PARAMS = {"w": jnp.ones((4, 3)), "b": [jnp.ones(2)]}
ROWS = collect()
ALGORITHMS = [row for row in ROWS if not row.changes]
ALONE = [row for row in ALGORITHMS if row.axis_name is None]
# Between them, their states have all kinds of parts that belong to workers.
OF_ALL_STATES = {"local_updates", "power_sgd"}
OVER_WORKERS = [row for row in ALGORITHMS if row not in ALONE]
WRAPPERS = [row for row in ALONE if row.inner() is not None]
# Algorithms of each kind, which run through all checks every day. Others, wrappers and
# variants run through some: all would take longer than a developer waits. The nightly
# run has all.
THROUGH_ALL = {
    "add_decayed_noise",
    "trace_with_bias_correction",
    "nesterov_lookahead",
    "scale_by_adasmooth",
    "clip_by_percentile",
}
OF_VARIANTS = {"jit_equals_eager", "state_bytes", "temporary_bytes"}
OF_OTHERS = {
    *OF_VARIANTS,
    "bfloat16",
    "scan_equals_loop",
    "donation",
    "masked",
    "restored_from_arrays",
}


def variants(change):
    """The rows that differ from their algorithm's in this."""
    return [row for row in ROWS if change in row.changes and row.inner() is None]


@parametrize_checks(
    [row for row in ALONE if row.name in THROUGH_ALL],
    checks=set(CHECKS) - set(CHECKS_OF["consumers"]),
)
def test_conformance(check):
    check()


@pytest.mark.nightly
@parametrize_checks(
    [row for row in ALONE if row not in WRAPPERS and row.name not in THROUGH_ALL],
    checks=set(CHECKS) - set(CHECKS_OF["consumers"]) - OF_OTHERS,
)
def test_others_in_all(check):
    check()


@parametrize_checks(
    [row for row in ALONE if row.name not in THROUGH_ALL], checks=OF_OTHERS
)
def test_others(check):
    check()


@pytest.mark.nightly
@parametrize_checks(
    [row for row in ROWS if row.inner() is not None],
    checks=set(CHECKS) - set(CHECKS_OF["consumers"]),
)
def test_around_others(check):
    check()


@pytest.mark.slow
@parametrize_checks(
    [row for row in OVER_WORKERS if row.name in OF_ALL_STATES],
    checks=CHECKS_OF["state"],
)
def test_state_of_workers(check):
    check()


@pytest.mark.nightly
@parametrize_checks(OVER_WORKERS, checks=set(CHECKS))
def test_over_workers(check):
    check()


@pytest.mark.nightly
@parametrize_checks(ALGORITHMS, checks=CHECKS_OF["consumers"])
def test_consumers(check):
    check()


@parametrize_checks(variants("formula"), checks=OF_VARIANTS & {*CHECKS_OF["formula"]})
def test_another_formula(check):
    check()


@parametrize_checks(variants("state"), checks=OF_VARIANTS & {*CHECKS_OF["state"]})
def test_another_state(check):
    check()


@pytest.mark.nightly
@parametrize_checks(variants("formula"), checks={*CHECKS_OF["formula"]} - OF_VARIANTS)
def test_another_formula_in_all(check):
    check()


@pytest.mark.nightly
@parametrize_checks(variants("state"), checks={*CHECKS_OF["state"]} - OF_VARIANTS)
def test_another_state_in_all(check):
    check()


@pytest.mark.nightly
@parametrize_checks(variants("draws"), checks=CHECKS_OF["draws"])
def test_other_draws(check):
    check()


@pytest.mark.nightly
@parametrize_checks(variants("sums"), checks=CHECKS_OF["sums"])
def test_other_sums(check):
    check()


@pytest.mark.slow
@parametrize_checks(variants("consumers"), checks=CHECKS_OF["consumers"])
def test_other_consumers(check):
    check()


def test_every_transformation_is_in_the_table():
    assert {row.factory for row in ROWS} == set(factories())


def test_every_algorithm_runs_through_all_checks():
    modules = {factory.__module__ for factory in factories()}
    assert {row.factory.__module__ for row in ALGORITHMS} == modules


def test_algorithms_of_each_kind_run_through_all_checks():
    assert {row.name for row in ALONE} >= THROUGH_ALL


def test_every_name_in_the_table_is_there_once():
    assert len({row.name for row in ROWS}) == len(ROWS)
    assert {change for row in ROWS for change in row.changes} <= set(CHECKS_OF)


def test_a_variant_says_what_it_changes():
    with pytest.raises(ValueError, match="a suffix needs `changes`"):
        spec(factories()[0], "nesterov")


@pytest.fixture(params=ALONE, ids=lambda row: row.name)
def tx(request):
    """Each transformation in turn."""
    return request.param.build()


@pytest.mark.parametrize(
    "bad", [jnp.zeros((4, 3), int), jnp.zeros((4, 3), bool), np.zeros((4, 3), "V")]
)
def test_integer_leaves_raise(tx, bad):
    if bad.dtype.kind == "V":
        bad = np.zeros((4, 3), jax.dtypes.float0)
    with pytest.raises(TypeError, match=r"floating-point or complex.*'w'"):
        tx.update({**PARAMS, "w": bad}, tx.init(PARAMS), PARAMS)


def buffers(state):
    """The leaves of a state that are shaped like the parameter `w`."""
    shape = PARAMS["w"].shape
    return [leaf for leaf in jax.tree.leaves(state) if leaf.shape == shape]


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
    if not buffers(state):
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
    for old, new in zip(buffers(state), buffers(after), strict=True):
        np.testing.assert_array_equal(new, old)
