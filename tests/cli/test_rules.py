"""The command that shows which rule is for which parameter."""

import functools
import json
import sys

import pytest

MODULE = '''
import math
import jax, jax.numpy as jnp, numpy as np, optax, optax_extras as ox
from optax_extras import Rule

print("noise of the module")

def huge(layers=2):
    """Made without memory for it."""
    return {
        "embed": jnp.zeros((1_000_000, 1_000_000)),
        "layers": [{"kernel": jnp.ones((4, 4)), "bias": jnp.ones(4)}] * layers,
        "an_attention_projection_with_a_long_name": {"and_more": jnp.ones((3, 3))},
    }

tree = {"w": jnp.ones(2), "stack": jax.ShapeDtypeStruct((2, 3), jnp.float32)}
number = 3

@jax.tree_util.register_pytree_node_class
class Model:
    """A tree that can be called too."""
    def __call__(self, x): raise RuntimeError
    def tree_flatten(self): return (jnp.ones(5),), None
    @classmethod
    def tree_unflatten(cls, auxiliary, children): return cls()

model = Model()

rules = [
    (".*/bias", Rule(weight_decay=0.0)),
    ("layers/.*/kernel", Rule(optax.cosine_decay_schedule(1.0, 10))),
    ("embed", Rule(frozen_until=math.inf)),
]
small = {"w": Rule(0.5, frozen_until=3), "stack": Rule(np.array([[0.5], [1.0]]))}

def transformation(rate=0.1):
    return ox.with_rules(optax.scale_by_adam(), rate, rules, weight_decay=0.01)

def chain(): return optax.chain(transformation())
def fails(): raise KeyError("gone")
def needs(rate): return rules
'''


@pytest.fixture(autouse=True)
def module(tmp_path, monkeypatch):
    """Puts the module into the current folder."""
    (tmp_path / "own_rules.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "160")
    yield
    sys.modules.pop("own_rules", None)


@pytest.fixture
def invoke(command):
    """Runs `optax-extras rules`: exit code, output, errors."""
    return functools.partial(command, "rules")


def test_a_table(invoke):
    code, out, err = invoke("own_rules:huge", "own_rules:transformation(rate=0.5)")
    assert (code, err) == (0, "noise of the module\n")
    lines = [line.split() for line in out.splitlines()]
    assert ["embed", "(1000000,", "1000000)", "embed", "1", "0.01", "forever"] in lines
    assert ["layers/0/bias", "(4,)", ".*/bias", "1", "0", "-"] in lines
    kernel = ["layers/1/kernel", "(4,", "4)", "layers/.*/kernel"]
    assert [*kernel, "cosine_decay_schedule", "0.01", "-"] in lines


@pytest.mark.parametrize("width", [120, 60, 45])
def test_a_table_fits_the_terminal(invoke, monkeypatch, width):
    monkeypatch.setenv("COLUMNS", str(width))
    _, out, _ = invoke("own_rules:huge(layers=1)", "own_rules:rules")
    assert max(map(len, out.splitlines())) <= width
    shown = "".join(out.split())
    for word in ("embed", "(1000000,1000000)", "layers/0/bias", "default", "forever"):
        assert word in shown
    assert "…" not in out
    # A path is broken after a slash.
    assert width < 120 or "\n and_more " in out


def test_json(invoke):
    _, out, _ = invoke("own_rules:tree", "own_rules:small", "--json")
    assert json.loads(out) == [
        {
            "path": "stack",
            "shape": [2, 3],
            "pattern": "stack",
            "lr_multiplier": [[0.5], [1.0]],
            "weight_decay": None,
            "frozen_until": 0,
        },
        {
            "path": "w",
            "shape": [2],
            "pattern": "w",
            "lr_multiplier": 0.5,
            "weight_decay": None,
            "frozen_until": 3,
        },
    ]
    _, out, _ = invoke("own_rules:huge(layers=1)", "own_rules:transformation", "--json")
    first, embed, _, kernel = json.loads(out)
    assert (first["pattern"], first["weight_decay"]) == (None, 0.01)
    assert embed["frozen_until"] == "forever"
    assert kernel["lr_multiplier"] == "cosine_decay_schedule"


def test_a_model_is_a_tree_and_no_function(invoke):
    code, out, err = invoke("own_rules:model", "own_rules:small")
    assert code == 2
    assert not out
    assert "'w' chooses none: the paths are '0'" in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["own_rules:huge", "own_rules:small"], "'w' chooses none: the paths are 'an_"),
        (
            ["own_rules:huge", "own_rules:rules", "--require-all"],
            "none matches 'an_atte",
        ),
        (
            ["own_rules:tree", "own_rules:chain"],
            "`rules` must be rules, or a transform",
        ),
        (["own_rules:tree", "own_rules:number"], "`rules` must be a mapping"),
        (
            ["own_rules:number", "own_rules:small"],
            "PARAMS must be a tree of arrays, got 3",
        ),
        (
            ["own_rules:fails", "own_rules:rules"],
            "cannot make PARAMS with 'own_rules:fa",
        ),
        (
            ["own_rules:tree", "own_rules:fails"],
            "cannot make RULES with 'own_rules:fail",
        ),
        (["own_rules:tree", "own_rules:needs"], "'own_rules:needs' needs `rate`; give"),
        (["own_rules:huge(depth=2)", "own_rules:rules"], "does not take `depth`"),
        (["own_rules:tree(a=1)", "own_rules:rules"], "must be a function"),
        (
            ["own_rules", "own_rules:rules"],
            "PARAMS must be MODULE:ATTRIBUTE; got 'own_ru",
        ),
        (["own_rules:tree", "own_rules:rule"], "did you mean 'rules'?"),
    ],
)
def test_errors_are_one_line(invoke, arguments, message):
    code, out, err = invoke(*arguments)
    assert (code, out) == (2, "")
    (line,) = [line for line in err.splitlines() if line.startswith("optax-extras: ")]
    assert message in line
    assert "Traceback" not in err
