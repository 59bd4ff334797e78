"""The command that plans the bytes of optimizers."""

import functools
import json
import sys

import jax
import optax
import pytest
from jax.sharding import AbstractMesh, NamedSharding, PartitionSpec as P

import optax_extras as ox
from optax_extras.cli import _memory

MODULE = '''
import jax, jax.numpy as jnp, optax, optax_extras as ox

print("noise of the module")

def model(layers=2):
    """Made without memory for it."""
    return {
        "embed": jnp.zeros((1_000_000, 100_000)),
        "layers": [{"w": jnp.ones((64, 32)), "b": jnp.ones(32)}] * layers,
    }

tree = {"w": jax.ShapeDtypeStruct((64, 32), jnp.float32)}
counts = {"w": jnp.ones((4, 4)), "steps": "x"}
empty = {}

momentum = optax.trace(0.9)
def narrow(learning_rate, mu_dtype="bfloat16"):
    return optax.adam(learning_rate, mu_dtype=mu_dtype)
def by_value(): return optax.polyak_sgd()
def refuses():
    def init(params): raise RuntimeError("boom\\nmore")
    return optax.GradientTransformation(init, optax.identity().update)
def fails(): raise KeyError("gone")
def needs(blocks): return optax.adam(0.1)
number = 3
'''
TREE = {"w": jax.ShapeDtypeStruct((64, 32), "float32")}


@pytest.fixture(autouse=True)
def module(tmp_path, monkeypatch):
    """Puts the module into the current folder."""
    (tmp_path / "own_memory.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "160")
    yield
    sys.modules.pop("own_memory", None)


@pytest.fixture
def invoke(command):
    """Runs `optax-extras memory`: exit code, output, errors."""
    return functools.partial(command, "memory")


@pytest.fixture
def few(monkeypatch):
    """Shows fewer optimizers, which compile faster."""
    monkeypatch.setattr(_memory, "BESIDE", ("adam", "sgd"))


def as_json(plan):
    """What the command prints of a plan, without the optimizer's name."""
    found = {
        "state": plan.state._asdict(),
        "fields": [row._asdict() for row in plan.fields],
        "temporary_bytes": plan.temporary_bytes,
        "no_temporaries": plan.no_temporaries,
        "bytes_per_device": plan.bytes_per_device,
    }
    return json.loads(json.dumps(found))


def lines(out):
    """The cells of each line."""
    return [line.split() for line in out.splitlines()]


def test_tables(invoke):
    code, out, err = invoke("own_memory:model")
    assert (code, err) == (0, "noise of the module\n")
    assert "100,000,004,160 parameters in 5 arrays: 373 GiB, and as much for g" in out
    rows = {line[0]: line[1:] for line in lines(out) if line}
    assert rows["adam"][:4] == []  # the heading of its fields
    summaries = [line for line in lines(out) if line and line[0] in _memory.BESIDE]
    assert [line[0] for line in summaries] == [*_memory.BESIDE, "adam"]
    assert summaries[0][1:4] == ["745", "GiB", "8"]
    assert summaries[2][1:] == ["0", "B", "0", "0", "B", "745", "GiB"]
    assert rows["0/mu"][:5] == ["5", "float32", "373", "GiB", "4"]
    assert rows["total"][-4:] == ["1.46", "TiB", "-", "-"]


def test_the_optimizers_that_are_asked_for_are_shown_by_field(invoke, few):
    names = ["own_memory:narrow(mu_dtype='float32')", "own_memory:momentum"]
    names.append("adamw(learning_rate=0.5)")
    asked = [word for name in names for word in ("--optimizer", name)]
    code, out, _ = invoke("own_memory:tree", *asked)
    assert code == 0
    # The names are wrapped in the table, and headings of the tables after it.
    assert [line.strip() in names for line in out.splitlines()].count(True) == 3
    assert [line[0] for line in lines(out) if line].count("temporaries") == 3
    assert "0/nu" in out
    assert " trace " in out
    assert [line for line in lines(out) if line and line[0] == "adam"]


@pytest.mark.daily("45")
@pytest.mark.parametrize("width", [120, 60, 45])
def test_tables_fit_the_terminal(invoke, few, monkeypatch, width):
    monkeypatch.setenv("COLUMNS", str(width))
    _, out, _ = invoke("own_memory:model(layers=1)", "--optimizer", "adafactor")
    assert max(map(len, out.splitlines())) <= width
    for word in ("parameters", "0/v_row", "temporaries", "373 GiB"):
        assert word in out
    assert "…" not in out


def test_json_is_what_plan_bytes_finds(invoke):
    name = "own_memory:narrow"
    _, out, _ = invoke("own_memory:tree", "--optimizer", name, "--json")
    found = json.loads(out)
    optimizers = {
        name: optax.adam(0.1, mu_dtype="bfloat16"),
        "adam": optax.adam(0.1),
        "adafactor": optax.adafactor(0.1),
        "sgd": optax.sgd(0.1),
        "muon": optax.contrib.muon(0.1),
        "adasmooth": ox.adasmooth(0.1),
    }
    plans = {name: ox.plan_bytes(tx, TREE) for name, tx in optimizers.items()}
    some = plans["adam"]
    assert found == {
        "parameter_count": 64 * 32,
        "parameters": json.loads(json.dumps(some.parameters._asdict())),
        "gradients": json.loads(json.dumps(some.gradients._asdict())),
        "backend": "cpu",
        "optimizers": [{"optimizer": k, **as_json(plan)} for k, plan in plans.items()],
        "failures": {},
    }


def sharded(*rules):
    """Options for eight devices."""
    words = [word for rule in rules for word in ("--shard", rule)]
    return ["--mesh", "data=4,model=2", *words]


def test_devices(invoke, few):
    _, out, _ = invoke("own_memory:tree", *sharded("w=data"), "--json")
    sharding = NamedSharding(jax.make_mesh((4, 2), ("data", "model")), P("data"))
    plan = ox.plan_bytes(optax.adam(0.1), TREE, sharding=sharding)
    (adam, _) = json.loads(out)["optimizers"]
    assert adam == {"optimizer": "adam", **as_json(plan)}
    assert adam["temporary_bytes"] is not None
    code, out, _ = invoke("own_memory:model", *sharded("embed=data+model"))
    assert code == 0
    assert "; 46.6 GiB of each on a device." in out
    assert "per device" in out
    code, out, _ = invoke("own_memory:tree", "--mesh", "data=2", "--shard", "w=data")
    assert code == 0
    assert "; 4 KiB of each on a device." in out


def test_the_first_rule_that_matches_counts(invoke, few):
    rules = sharded(
        "embed=data+model", "layers/.*/w=None,model", "(.*/w|a|.*/1/b)=data"
    )
    _, out, _ = invoke("own_memory:model", *rules, "--json")
    (adam, _) = json.loads(out)["optimizers"]
    weights, biases = 2 * 64 * 32 // 2, 32 + 32 // 4
    on_device = 10**11 // 8 + weights + biases
    assert adam["state"]["bytes_per_device"] == 8 * on_device + 4


def test_devices_that_do_not_exist(invoke, few):
    options = ("--mesh", "data=64,model=8", "--shard", "w=data,model")
    code, out, _ = invoke("own_memory:tree", *options)
    assert code == 0
    assert "unknown" in out
    assert "adam: without temporaries: a mesh is abstract" in out
    _, out, _ = invoke("own_memory:tree", *options, "--json")
    mesh = AbstractMesh((64, 8), ("data", "model"))
    sharding = NamedSharding(mesh, P("data", "model"))
    plan = ox.plan_bytes(optax.adam(0.1), TREE, sharding=sharding)
    assert json.loads(out)["optimizers"][0] == {"optimizer": "adam", **as_json(plan)}


def test_devices_are_made_before_modules_are_loaded(invoke, few, monkeypatch):
    from optax_extras.cli import _inspecting

    wanted = []
    monkeypatch.setattr(_inspecting, "use_devices", wanted.append)
    for mesh in ("data=4,model=2", "data=1000,model=1000"):
        code, *_ = invoke("absent:model", "--mesh", mesh)
        assert (code, wanted) == (2, [8])  # a million would take minutes to make


def test_a_step_that_needs_more_arguments(invoke, few):
    code, out, _ = invoke("own_memory:tree", "--optimizer", "own_memory:by_value")
    assert code == 0
    assert "own_memory:by_value: without temporaries: the step cannot be" in out


def test_an_optimizer_that_was_not_asked_for_may_fail(invoke, monkeypatch):
    monkeypatch.setattr(_memory, "BESIDE", ("own_memory:refuses", "sgd"))
    code, out, _ = invoke("own_memory:tree")
    assert code == 0
    assert "own_memory:refuses: no plan: RuntimeError: boom.\n" in out
    assert [line[0] for line in lines(out) if line].count("own_memory:refuses") == 0
    _, out, _ = invoke("own_memory:tree", "--json")
    assert json.loads(out)["failures"] == {"own_memory:refuses": "RuntimeError: boom"}


ASK = ("own_memory:tree", "--optimizer")
MESH = ("own_memory:tree", "--mesh", "data=4,model=2")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["own_memory:empty"], "extras: `params` must hold at least one array, got {}"),
        (["own_memory:counts"], "got 'x' at 'steps'"),
        (["own_memory:number(x=1)"], "'own_memory:number(x=1)' must be a function"),
        (["own_memory:fails"], "cannot make PARAMS with 'own_memory:fails': KeyErr"),
        (["own_memory"], "PARAMS must be MODULE:ATTRIBUTE; got 'own_memory'"),
        ([*ASK, "adan"], "--optimizer must be MODULE:ATTRIBUTE or one of sgd, "),
        ([*ASK, "adan"], "did you mean 'adam'?"),
        ([*ASK, "adam(b7=1)"], "'adam(b7=1)' does not take `b7`; it takes `learn"),
        ([*ASK, "own_memory:needs"], "'own_memory:needs' needs `blocks`; give it in"),
        ([*ASK, "own_memory:fails"], "cannot make 'own_memory:fails': KeyError"),
        (
            [*ASK, "own_memory:number"],
            "cannot plan 'own_memory:number': TypeError: `tx",
        ),
        ([*ASK, "own_memory:refuses"], "cannot plan 'own_memory:refuses': Runtime"),
        (["own_memory:tree", "--shard", "w=data"], "--shard goes with --mesh"),
        (["own_memory:tree", "--mesh", "data"], "axes, such as data=8,model=4, got 'd"),
        (["own_memory:tree", "--mesh", "a=2,a=4"], "--mesh must be the sizes of diff"),
        (["own_memory:tree", "--mesh", "a=0"], "--mesh must be the sizes of different"),
        ([*MESH, "--shard", "w"], "--shard must be PATTERN=AXES, such as 'layers/.*/"),
        ([*MESH, "--shard", "w=rows"], "--mesh, which are data, model; got 'rows' in"),
        ([*MESH, "--shard", "w="], "--mesh, which are data, model; got '' in 'w='"),
        ([*MESH, "--shard", "v=data"], "'v' chooses none: the paths are 'w'"),
        ([*MESH, "--shard", "(=data"], "patterns of `--shard` must be regular express"),
        ([*MESH, "--shard", "w=data,data"], "has duplicate entries for `data`"),
        ([*MESH, "--shard", "w=data,None,model"], "must divide it into equal parts"),
        (
            ["own_memory:tree", "--mesh", "data=5", "--shard", "w=data"],
            "optax-extras: `sharding`, or that of a parameter itself, must divide it",
        ),
    ],
)
def test_errors_are_one_line(invoke, few, arguments, message):
    code, out, err = invoke(*arguments)
    assert (code, out) == (2, "")
    (line,) = [line for line in err.splitlines() if line.startswith("optax-extras: ")]
    assert message in line
    assert "Traceback" not in err
