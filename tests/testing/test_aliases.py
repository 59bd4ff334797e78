"""What `aliases_of` learns of the optimizers that a module exports."""

import sys
import types
from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax
import pytest
from optax import contrib

import optax_extras as ox
from optax_extras.testing import Spec, aliases_of


def annotated(
    learning_rate: float, decay: float | jax.Array | Callable[[int], float] = 0.5
) -> optax.GradientTransformation:
    """Is annotated to take what it does not."""
    return optax.sgd(learning_rate, momentum=float(decay))


def tried(learning_rate, decay=0.5, scale=1.0, steps=3, mask=None, nesterov=False):
    """Takes an array for the decay, and also a schedule for the rate."""
    del mask, steps
    tx = optax.sgd(learning_rate, momentum=decay, nesterov=nesterov)
    return optax.chain(optax.scale(float(scale)), tx)


tried.__annotations__["return"] = optax.GradientTransformation


def needs_a_number(stddev, learning_rate) -> optax.GradientTransformation:
    """Has another required argument."""
    return optax.chain(optax.scale(1 + stddev), optax.sgd(learning_rate))


def needs_a_base(base, learning_rate) -> optax.GradientTransformation:
    """Wraps another optimizer."""
    return optax.chain(base, optax.scale(1 + 0 * learning_rate))


def needs_more(learning_rate, data) -> optax.GradientTransformation:
    """Has a required argument that cannot be found."""
    return optax.chain(optax.sgd(learning_rate), data["x"])


def searches(learning_rate=None) -> optax.GradientTransformation:
    """Needs several arguments of `update`, and takes no others."""
    return optax.lbfgs(learning_rate)


def looks_at_the_loss(learning_rate) -> optax.GradientTransformation:
    """Scales steps by the loss."""

    def update(grads, state, params=None, *, value, **extra):
        del params, extra
        return optax.tree.scale(-learning_rate * value, grads), state

    return optax.GradientTransformationExtraArgs(optax.init_empty_state, update)


def averages(learning_rate) -> optax.GradientTransformation:
    """Keeps the state that the evaluation parameters of schedule-free are read off."""
    return contrib.schedule_free_sgd(learning_rate)


def looks_ahead(learning_rate) -> optax.GradientTransformation:
    """Keeps the state that the look-ahead point is read off."""
    return optax.chain(ox.nesterov_lookahead(learning_rate), optax.identity())


def draws(learning_rate, key) -> optax.GradientTransformation:
    """Adds a little noise."""
    return ox.noisy_sgd(learning_rate, 0.01, key=key)


def samples(learning_rate, temperature=1.0, *, key) -> optax.GradientTransformation:
    """Adds more noise than a step is long."""
    return ox.sgld(learning_rate, temperature, key=key)


def has_an_idle_key(learning_rate, key=None) -> optax.GradientTransformation:
    """Takes a key and draws nothing."""
    del key
    return optax.sgd(learning_rate)


def is_broken(learning_rate) -> optax.GradientTransformation:
    """Fails in every step."""
    return optax.stateless(lambda updates, params: updates["x"])


def add_more(learning_rate) -> optax.GradientTransformation:
    """Is a stage by its name."""
    return optax.sgd(learning_rate)


def other(learning_rate) -> float:
    """Returns no transformation."""
    return learning_rate


@pytest.fixture(scope="module")
def specs():
    """Specs of all of the above, by their names."""
    module = types.ModuleType("stranger")
    vars(module).update(
        {k: v for k, v in globals().items() if isinstance(v, types.FunctionType)}
    )
    sys.modules["stranger"] = module
    yield {spec.name: spec for spec in aliases_of("stranger")}
    del sys.modules["stranger"]


def test_stages_and_other_functions_are_left_out(specs):
    assert not {"add_more", "other", "specs"} & set(specs)


def test_annotations_are_believed(specs):
    assert specs["annotated"].hyperparameters == {"learning_rate": 0.1, "decay": 0.5}
    assert list(specs["annotated"].schedules) == ["learning_rate", "decay"]


def test_arguments_without_annotations_are_tried(specs):
    assert specs["tried"].hyperparameters == {"learning_rate": 0.1, "decay": 0.5}
    assert list(specs["tried"].schedules) == ["learning_rate"]


def test_required_arguments_are_found(specs):
    assert specs["needs_a_number"].hyperparameters == {
        "stddev": 0.01,
        "learning_rate": 0.1,
    }
    assert specs["needs_a_base"].hyperparameters == {}
    specs["needs_a_base"].make()


def test_what_cannot_be_found_is_left_to_the_checks(specs):
    assert isinstance(specs["needs_more"], Spec)
    assert isinstance(specs["is_broken"], Spec)


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("tried", None),
        ("looks_at_the_loss", {"value"}),
        ("searches", {"value", "grad", "value_fn"}),
    ],
)
def test_arguments_of_update_are_found(specs, name, arguments):
    extra_args = specs[name].extra_args
    if arguments is None:
        assert extra_args is None
    else:
        step = types.SimpleNamespace(value=1, grad=2, value_fn=3)
        assert set(extra_args(step)) == arguments


def test_a_line_search_has_no_rate(specs):
    assert "learning_rate" not in specs["searches"].hyperparameters


def test_points_of_gradients_and_evaluation_are_found(specs):
    assert specs["averages"].eval_params is contrib.schedule_free_eval_params
    assert specs["looks_ahead"].gradient_params is ox.nesterov_lookahead_params
    assert specs["tried"].eval_params is specs["tried"].gradient_params is None


@pytest.mark.parametrize(
    ("name", "supports"),
    [
        ("tried", {"descent"}),
        ("draws", {"descent", "random"}),
        ("samples", {"random"}),
        ("has_an_idle_key", {"descent"}),
    ],
)
def test_randomness_is_found(specs, name, supports):
    assert specs[name].supports == supports


@pytest.mark.daily("optax_extras", "optax.contrib")
@pytest.mark.parametrize("module", ["optax", "optax.contrib", "optax_extras"])
def test_every_alias_is_made(module):
    specs = aliases_of(module)
    if module == "optax_extras":
        assert [spec.name for spec in specs] == [
            "adai",
            "adashift",
            "adasmooth",
            "aggmo",
            "anti_pgd",
            "diffgrad",
            "hyperball",
            "momentum_sgd",
            "nesterov_lookahead",
            "noisy_sgd",
            "psgld",
            "qhadam",
            "qhm",
            "sgld",
            "srsgd",
        ]
    for spec in specs:
        key = {"key": 7} if "random" in spec.supports else {}
        tx = spec.make(**spec.hyperparameters, **key)
        jax.eval_shape(tx.init, {"w": jnp.ones((4, 2))})
