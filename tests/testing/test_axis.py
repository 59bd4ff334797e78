"""Transformations that communicate over a mapped axis of workers."""

import jax
import jax.numpy as jnp
import optax
import pytest
from jax.sharding import PartitionSpec

import optax_extras as ox
from optax_extras.testing import ConformanceError, Spec, check_transformation

WORKERS = 2
AXIS = {"axis_name": "workers", "workers": WORKERS}
ON_ITS_OWN_MESH = {
    "compiles_before_other_transformations",
    "explicit_sharding",
    "many_devices_equal_one",
    "scan_inside_shard_map",
    "sharding_is_kept",
}


def mean(learning_rate):
    """SGD with momentum on the mean of the workers' gradients."""
    average = optax.stateless(lambda grads, params: jax.lax.pmean(grads, "workers"))
    return optax.chain(average, optax.sgd(learning_rate, momentum=0.9))


def noise_per_worker(eta, key):
    """Noise that differs between workers."""
    return ox.add_decayed_noise(eta, key=key, axis_name="workers")


def last_gradient(learning_rate):
    """SGD that keeps each worker's last gradient along a first axis of its state."""

    def init(params):
        return jax.tree.map(lambda p: jnp.zeros((WORKERS, *p.shape), p.dtype), params)

    def update(grads, state, params=None, **extra):
        updates = jax.tree.map(
            lambda g: (-learning_rate * jax.lax.pmean(g, "workers")).astype(g.dtype),
            grads,
        )
        return updates, jax.tree.map(
            lambda g, last: g.astype(last.dtype)[None], grads, state
        )

    return optax.GradientTransformationExtraArgs(init, update)


MEAN = Spec(
    "mean",
    mean,
    hyperparameters={"learning_rate": 0.1},
    schedules=["learning_rate"],
    supports={"descent", "complex", "complex_as_real"},
    **AXIS,
)
NOISE = Spec(
    "noise_per_worker",
    noise_per_worker,
    hyperparameters={"eta": 0.1},
    schedules=["eta"],
    supports={"random", "complex"},
    **AXIS,
)
LAST = Spec(
    "last_gradient",
    last_gradient,
    hyperparameters={"learning_rate": 0.1},
    state_specs=lambda state: PartitionSpec("workers"),
    supports={"descent", "complex", "complex_as_real"},
    **AXIS,
)


KNOWN = {  # what optax's momentum does not follow, and what `last_gradient` does not
    "mean": {
        "none_gradient",
        "gradients_of_another_dtype",
        "inject_float32_hyperparams_on_bfloat16",
    },
    "last_gradient": {"none_gradient"},
}
# Those that see the axis, the mesh or the caller's placement of arrays.
SEEING = {
    *ON_ITS_OWN_MESH,
    "apply_if_finite",
    "chain",
    "cond_takes_or_leaves_a_step",
    "donation",
    "float16",
    "init_accepts_abstract_values",
    "inject_hyperparams",
    "no_retrace",
    "restored_from_pickle",
    "scan_equals_loop",
    "state_is_a_fixed_point",
    "steps_draw_differently",
    "temporary_bytes",
    "tree_map_params_of_state",
    "vmap_over_parameters",
}


def run(spec, checks):
    results = check_transformation(spec, on_fail="collect", checks=checks)
    failed = {result.check: result.message for result in results if not result.ok}
    assert set(failed) == KNOWN.get(spec.name, set()) & {r.check for r in results}, (
        failed
    )
    without = {r.check for r in results if r.message.endswith("the mesh of its axis")}
    assert without - {"draws_do_not_depend_on_sharding"} == ON_ITS_OWN_MESH


@pytest.mark.daily("last_gradient")
@pytest.mark.parametrize("spec", [MEAN, LAST], ids=lambda spec: spec.name)
def test_a_transformation_over_an_axis(spec):
    run(spec, SEEING)


@pytest.mark.nightly
@pytest.mark.parametrize("spec", [MEAN, NOISE, LAST], ids=lambda spec: spec.name)
def test_all_checks_over_an_axis(spec):
    run(spec, None)


def test_a_state_that_differs_between_workers_needs_specs():
    local = Spec("local", lambda: optax.sgd(0.1, momentum=0.9), **AXIS)
    with pytest.raises(ConformanceError, match="out_specs"):
        check_transformation(local, checks=["pure"])


def test_too_few_devices_are_not_a_failure():
    many = Spec(
        "many",
        mean,
        hyperparameters={"learning_rate": 0.1},
        axis_name="workers",
        workers=64,
    )
    (result,) = check_transformation(many, checks=["pure"])
    assert result.status == "not applicable"
    assert "it needs 64 devices, and there are 8" in result.message


@pytest.mark.parametrize(
    ("workers", "error"), [(0, ValueError), (2.0, TypeError), (True, TypeError)]
)
def test_bad_workers(workers, error):
    with pytest.raises(error, match=f"`workers` must be .*, got {workers}"):
        Spec("mean", mean, axis_name="workers", workers=workers)
