"""Patterns that choose leaves."""

import jax
import jax.numpy as jnp
import pytest

from optax_extras._core.patterns import compile_patterns, first_matches, path_text

PATHS = ["head/w", "layers/0/w", "layers/1/w"]


def patterns(found):
    return [match and match.re.pattern for match in found]


def matches(*texts, paths=PATHS):
    return first_matches("rules", compile_patterns("rules", texts), paths)


def test_paths_are_joined_by_slashes():
    tree = {"layers": [{"w": jnp.ones(1)}], "s": (jnp.ones(1),)}
    paths = [path_text(path) for path, _ in jax.tree.leaves_with_path(tree)]
    assert paths == ["layers/0/w", "s/0"]
    assert path_text(()) == ""


def test_the_first_pattern_that_matches_whole_paths_counts():
    found = matches(r"layers/1/.*", r"layers/(\d)/w")
    assert patterns(found) == [None, r"layers/(\d)/w", "layers/1/.*"]
    assert found[1][1] == "0"


def test_a_tree_without_leaves_has_no_matches():
    assert matches("typo", paths=[]) == []


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["layers"], r"whole path.*'layers' chooses none: the paths are 'head/w', 'l"),
        ([".*", "head/w"], "'head/w' chooses none: an earlier pattern matches each"),
    ],
)
def test_a_pattern_that_chooses_no_leaf_is_refused(texts, message):
    with pytest.raises(ValueError, match=message):
        matches(*texts)


def test_what_is_no_regular_expression_is_refused():
    with pytest.raises(ValueError, match=r"of `axes` must be regular.*'\(': missing"):
        compile_patterns("axes", ["("])
    with pytest.raises(TypeError, match=r"of `axes` must be regular.*got 3"):
        compile_patterns("axes", [3])
