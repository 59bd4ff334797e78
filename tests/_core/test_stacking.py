"""Axes along which leaves are stacked."""

import jax.numpy as jnp
import pytest

from optax_extras._core.stacking import StackAxes, Stacked

LEAVES = {"head": jnp.ones((5, 2)), "layers/w": jnp.ones((3, 4, 5)), "none": None}


def of_leaves(axes):
    return StackAxes.of(axes).of_leaves(list(LEAVES), list(LEAVES.values()))


def test_axes_are_those_of_the_first_pattern_and_not_negative():
    found = of_leaves({"layers/.*": -3, "head": [1, -2]})
    assert found == [Stacked("head", (1, 0)), Stacked("layers/.*", (0,)), None]


@pytest.mark.parametrize(
    ("axes", "error", "message"),
    [
        (
            {"layer/.*": 0},
            ValueError,
            "'layer/.*' chooses none: the paths are 'head', ",
        ),
        ({"head": 2}, ValueError, r"got \(2,\) for 'head' of shape \(5, 2\)"),
        ({"head": -3}, ValueError, r"got \(-3,\) for 'head' of shape \(5, 2\)"),
        ({"head": (0, 0)}, ValueError, r"`axes` of 'head' must differ, got \(0, 0\)"),
        ({"head": (0, -2)}, ValueError, r"`axes` of 'head' must differ, got \(0, -2\)"),
        ({"head": 0.5}, TypeError, "`axes` of 'head' must be an int or several, got 0"),
        ({"head": True}, TypeError, "must be an int or several, got True"),
        ({"head": ()}, TypeError, r"must be an int or several, got \(\)"),
        ({"(": 0}, ValueError, "must be regular expressions"),
        ([("head", 0)], TypeError, "`axes` must map patterns to axes, got"),
    ],
)
def test_bad_axes(axes, error, message):
    with pytest.raises(error, match=message):
        of_leaves(axes)
