"""Every check fails on the transformation that breaks it, and says why.

A row runs its check, its companions, the other checks of their modules, and of all
other modules those that compile little.
"""

import jax
import optax
import pytest

from optax_extras.testing import CHECKS, Spec, iter_checks
from optax_extras.testing.checks import _compile_time

from testing.broken import BROKEN, PLAIN, RANDOM, healthy

COMPILING = {
    "apply_if_finite",
    "bfloat16",
    "compiles_before_other_transformations",
    "complex_numbers",
    "cond_takes_or_leaves_a_step",
    "descends_a_matrix_factor",
    "descends_a_mixed_tree",
    "descends_a_parabola",
    "descends_rosenbrock",
    "donation",
    "draws_do_not_depend_on_sharding",
    "explicit_sharding",
    "float16",
    "float64",
    "hyperparameters_may_be_arrays",
    "jit_equals_eager",
    "loop_length_does_not_matter",
    "many_devices_equal_one",
    "multi_steps",
    "no_retrace",
    "restored_from_arrays",
    "restored_from_orbax",
    "restored_from_pickle",
    "scan_equals_loop",
    "scan_inside_shard_map",
    "sharding_is_kept",
    "temporary_bytes",
    "vmap_over_hyperparameters",
    "vmap_over_keys",
    "vmap_over_parameters",
}


UNSEEN = {
    "keys_are_used_once": "JAX 0.9 does not see this reuse",
    "restored_from_arrays": "JAX 0.9 does not pickle typed keys either",
}


# No program compiles for minutes on every version, so the limit is lowered instead.
BY_ITS_LIMIT = "compiles_before_other_transformations"


def test_every_check_is_broken():
    assert {*BROKEN, BY_ITS_LIMIT} == set(CHECKS)


def test_slow_compilation_is_broken(monkeypatch):
    monkeypatch.setattr(_compile_time, "LIMIT", 0.01)
    (check,) = iter_checks(lambda: optax.sgd(0.1), checks=[BY_ITS_LIMIT])
    message = "a step with optax.adam behind it did not compile in 0.01 s"
    assert message in check.run().message


def neighbours(name):
    """The checks to run on what breaks a check."""
    expected = {name} | BROKEN[name].companions
    modules = {CHECKS[name].function.__module__ for name in expected}
    return {
        other.name
        for other in CHECKS.values()
        if other.name in expected
        or other.function.__module__ in modules
        or not (other.slow or other.name in COMPILING)
    }


@pytest.mark.parametrize("name", BROKEN)
def test_broken(name):
    if name in UNSEEN and jax.__version_info__ < (0, 10):
        pytest.skip(UNSEEN[name])
    broken = BROKEN[name]
    with jax.numpy_rank_promotion("allow"):  # only the check of it may forbid it
        results = [
            check.run() for check in iter_checks(broken.spec, checks=neighbours(name))
        ]
    failures = {result.check: result.message for result in results if not result.ok}
    assert set(failures) == {name} | broken.companions, failures
    assert broken.message in failures[name]


@pytest.mark.parametrize("supports", [PLAIN, RANDOM], ids=["plain", "random"])
def test_healthy(supports):
    spec = Spec(
        "healthy",
        healthy,
        hyperparameters={"learning_rate": 0.1},
        schedules=["learning_rate"],
        supports=supports,
    )
    for check in iter_checks(spec, slow=True):
        check()
