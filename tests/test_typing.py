"""The types that signatures show."""

import inspect
import typing

import pytest

import optax_extras as ox
import optax_extras.typing as ox_typing

FUNCTIONS = [getattr(ox, name) for name in ox.__all__ if name.islower()]


@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda f: f.__name__)
def test_signatures_name_their_types(function):
    signature = str(inspect.signature(function))
    assert len(signature) <= 450
    assert "ndarray" not in signature
    assert "Callable" not in signature


@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda f: f.__name__)
def test_annotations_can_be_evaluated(function):
    for annotation in inspect.get_annotations(function, eval_str=True).values():
        assert annotation is not None


def test_a_scalar_is_real():
    assert {bool, complex}.isdisjoint(typing.get_args(ox_typing.Scalar))
    assert float in typing.get_args(ox_typing.Scalar)
