# %% [markdown]
# # Optimizers in less memory
#
# Adam keeps two float32 numbers for each parameter. With the parameters and their
# gradients that is 16 bytes, 15 GiB for a billion of them, before a single activation
# is stored. Kept in 8 bits with a scale for each block (Dettmers et al. 2022,
# [arXiv 2110.02861](https://arxiv.org/abs/2110.02861)), the state takes a quarter.
# Parameters that are rounded at random, or whose remainders are kept (Zamirai et al.
# 2020, [arXiv 2010.06192](https://arxiv.org/abs/2010.06192)), train in bfloat16 without
# a copy in float32.
#
# You will see which optimizers fit a model of a billion parameters into the 15 GiB of
# the GPU that Colab lends for free, on paper; what a code of 8 or 4 bits keeps of a
# block of moments; what goes wrong if an average or a parameter is rounded to the
# nearest; and small runs on real data. The last section says what not to compress.
#
# In a hurry? `OPTAX_EXTRAS_SHORT=1` in the environment takes fewer steps, seeds and
# optimizers.

# %%
import importlib.util
import subprocess
import sys

REPOSITORY = "https://github.com/optax-extras/optax-extras"

if importlib.util.find_spec("optax_extras") is None:
    in_colab = importlib.util.find_spec("google.colab") is not None
    source = f"optax-extras[cli] @ git+{REPOSITORY}" if in_colab else "..[cli]"
    subprocess.run([sys.executable, "-m", "pip", "install", "-q", source], check=True)

# %%
import os

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax

import optax_extras as ox
from optax_extras.codecs import bfloat16, blockwise
from optax_extras.tasks import digits

SHORT = os.environ.get("OPTAX_EXTRAS_SHORT") == "1"
SEEDS = 3 if SHORT else 5
STEPS = 100 if SHORT else 300
AVERAGED = 1000 if SHORT else 4000  # steps of an average
GIB = 2**30

BLUE, ORANGE, GREEN, PURPLE = "#0072B2", "#D55E00", "#009E73", "#CC79A7"
SKY, YELLOW = "#56B4E9", "#E69F00"
plt.rcParams.update(
    {
        # An opaque page of its own keeps the text legible on a dark one.
        "figure.facecolor": "white",
        "axes.facecolor": "white",
        "savefig.facecolor": "white",
        "figure.constrained_layout.use": True,
        "axes.grid": True,
        "grid.alpha": 0.3,
        "axes.titlesize": "medium",
    }
)


# Lines that coincide are seen through thinner ones.
WIDE = {"color": "black", "linewidth": 6, "alpha": 0.25}


print(f"{'short' if SHORT else 'full'} mode, {SEEDS} seeds, {STEPS} steps")

# %% [markdown]
# ## Which optimizers fit
#
# The model is a transformer with 24 layers of width 1792, stacked, and 32 000 words.
# `jax.eval_shape` gives the shapes of its parameters without their values, and
# `plan_bytes` compiles a step for shapes alone. Nothing here is allocated.

# %%
LAYERS, WIDTH, WORDS = 24, 1792, 32_000
BUDGET = 15.0  # GiB of a T4


def transformer(key):
    """Initial parameters."""

    def matrix(*shape):
        return 0.02 * jax.random.normal(key, shape)

    layer = {name: matrix(LAYERS, WIDTH, WIDTH) for name in "qkvo"}
    layer |= {
        "up": matrix(LAYERS, WIDTH, 4 * WIDTH),
        "down": matrix(LAYERS, 4 * WIDTH, WIDTH),
        "scale": jnp.ones((LAYERS, 2, WIDTH)),
    }
    return {"embedding": matrix(WORDS, WIDTH), "layer": layer}


EIGHT_BITS = {"mu": blockwise(), "nu": blockwise(signed=False)}
MIXED = {**EIGHT_BITS, "mu": blockwise(4)}
SIXTEEN_BITS = {"mu|nu": bfloat16()}


def adam(learning_rate=0.001, codecs=None):
    """Adam, perhaps with codecs."""
    tx = optax.adam(learning_rate)
    return tx if codecs is None else ox.compress_state(tx, codecs)


float32 = jax.eval_shape(transformer, jax.random.key(0))
in_bfloat16 = jax.tree.map(lambda x: x.update(dtype=jnp.bfloat16), float32)
candidates = {
    "AdaSmooth": (ox.adasmooth(0.001), float32),
    "Adam": (adam(), float32),
    "SGD, momentum": (optax.sgd(0.001, momentum=0.9), float32),
    "Adam, 16 bits": (adam(codecs=SIXTEEN_BITS), float32),
    "Adam, 8 bits": (adam(codecs=EIGHT_BITS), float32),
    "Adam, 4 and 8 bits": (adam(codecs=MIXED), float32),
    "Lion, 8 bits": (
        ox.compress_state(optax.lion(0.001), {"mu": blockwise()}),
        float32,
    ),
    "all in 16 bits": (
        ox.keep_bfloat16_params(adam(codecs=SIXTEEN_BITS)),
        in_bfloat16,
    ),
    "16 bits, state in 8": (
        ox.keep_bfloat16_params(adam(codecs=EIGHT_BITS)),
        in_bfloat16,
    ),
}
if SHORT:
    kept = ("AdaSmooth", "Adam", "Adam, 8 bits", "16 bits, state in 8")
    candidates = {name: candidates[name] for name in kept}
plans = {name: ox.plan_bytes(tx, params) for name, (tx, params) in candidates.items()}
allocated = sum(x.nbytes for x in jax.live_arrays())
print(f"{allocated} bytes are allocated")

# %%
PARTS = {
    "parameters": (lambda plan: plan.parameter_bytes, "0.45"),
    "gradients": (lambda plan: plan.gradient_bytes, "0.75"),
    "state": (lambda plan: plan.state_bytes, BLUE),
    "temporaries": (lambda plan: plan.temporary_bytes, SKY),
}
figure, axes = plt.subplots(figsize=(9, 4.4))
left = np.zeros(len(plans))
for part, (bytes_of, color) in PARTS.items():
    sizes = np.array([bytes_of(plan) for plan in plans.values()]) / GIB
    axes.barh(list(plans), sizes, left=left, color=color, label=part)
    left += sizes
axes.axvline(BUDGET, color="black", linestyle="--", label=f"{BUDGET:g} GiB")
axes.invert_yaxis()
axes.grid(axis="y")
axes.set(xlabel="GiB", xlim=(0, 20))
axes.legend(loc="lower right")
count = plans["Adam"].parameter_count
axes.set_title(f"{count / 1e9:.2f} billion parameters, without activations")
plt.show()

largest = {}
for name, plan in plans.items():
    kept = plan.parameter_bytes + plan.gradient_bytes + plan.state_bytes
    largest[name] = BUDGET * GIB / (kept / count)
    print(
        f"{name:19}: {plan.bytes_per_parameter:5.2f} B of state for each parameter;"
        f" {BUDGET:g} GiB hold {largest[name] / 1e9:.2f} billion parameters"
    )

# %% [markdown]
# Parameters, gradients and the state of Adam take 14.6 GiB, and leave no room for
# activations. In 8 bits the state takes a quarter, and 5 GiB are left. With parameters
# and gradients in bfloat16 too, the same memory holds a model of 2.7 times the size.
#
# Temporaries are what the step of the optimizer takes beside this, as XLA counts them
# for the CPU; on a GPU they differ. Those of the last line are gradients in float32.
# Printed, a plan tells where the bytes are:

# %%
print(plans["Adam, 8 bits"])

# %% [markdown]
# ## What a code keeps
#
# Of each block of at most 256 numbers, the largest magnitude $s$ is kept in float32.
# A number is then a code $c$ of $n$ levels,
#
# $$x \approx s\,\mathrm{sign}(c)\,(|c| / n)^2 \quad\text{or, unsigned,}\quad
# x \approx s\,(c / n)^4,$$
#
# so that levels are dense near zero. Here is a block of moments of Adam, from the first
# layer of a network that trains on scikit-learn's digits.

# %%
task = digits(hidden=256)
RATE = 0.003


def prepare(key):
    """Initial parameters, and the rows of all mini-batches."""
    init_key, order_key = jax.random.split(key)
    return task.init(init_key), task.batches.plan(order_key, jnp.int32(0), STEPS)


def train(tx, seed, dtype=jnp.float32):
    """The state at the end, and the loss of all training images every ten steps."""
    params, rows = seed
    params = jax.tree.map(lambda p: p.astype(dtype), params)

    def step(carry, rows):
        params, state = carry
        gradient = jax.grad(task.loss)(params, task.batches.take(rows))
        updates, state = tx.update(gradient, state, params)
        return (optax.apply_updates(params, updates), state), None

    def ten_steps(carry, rows):
        carry, _ = jax.lax.scan(step, carry, rows)
        metrics = task.evaluate(jax.tree.map(lambda p: p.astype(jnp.float32), carry[0]))
        return carry, (metrics["train_loss"], metrics["test_loss"])

    rows = rows.reshape(STEPS // 10, 10, *rows.shape[1:])
    (_, state), losses = jax.lax.scan(ten_steps, (params, tx.init(params)), rows)
    return state, losses


seeds = jax.jit(jax.vmap(prepare))(jax.random.split(jax.random.key(0), SEEDS))
one_seed = jax.tree.map(lambda x: x[0], seeds)
moments = jax.jit(lambda seed: train(optax.adam(RATE), seed)[0][0])(one_seed)
ROW = 20  # of the first layer: the pixel in row 2, column 4
first, second = (x[0]["w"][ROW] for x in (moments.mu, moments.nu))


def stored(codec, x):
    """What is left of a block of numbers in a codec."""
    words = jax.random.bits(jax.random.key(1), x.shape, jnp.uint32)
    code = codec.encode(x, codec.statistics(x), words)
    return np.asarray(codec.decode(code, x.shape))


left_of = {
    (bits, signed): stored(blockwise(bits, signed=signed), first if signed else second)
    for bits in (8, 4)
    for signed in (True, False)
}
figure, panels = plt.subplots(1, 2, figsize=(11, 4))
for axes, signed, x in zip(panels, (True, False), (first, second), strict=True):
    order = np.argsort(x)
    axes.plot(np.asarray(x)[order], **WIDE, label="float32")
    axes.plot(left_of[4, signed][order], ".", color=ORANGE, label="4 bits")
    axes.plot(left_of[8, signed][order], color=BLUE, linewidth=1, label="8 bits")
    axes.set(xlabel="number of the block, by size", ylabel="value")
    axes.legend()
panels[0].set_title("first moments: sign and square")
panels[1].set_title("second moments: fourth power")
panels[1].set_yscale("log")
figure.suptitle(
    f"One block of Adam's moments after {STEPS} steps on digits, seed 0",
    fontsize="medium",
)
plt.show()
for (bits, signed), found in left_of.items():
    x, which = (first, "first") if signed else (second, "second")
    error = np.sqrt(np.mean((found - x) ** 2) / np.mean(np.square(x)))
    print(
        f"{which} moments, {bits} bits: an error of {error:.2%} of the root mean square"
    )

# %% [markdown]
# ## Rounding to the nearest, and at random
#
# An average $v \leftarrow \beta v + (1 - \beta) g^2$ with $\beta = 0.999$ falls by a
# thousandth of itself when $g$ is small. In bfloat16, half of a unit in the last place
# is two to four thousandths. Rounded to the nearest, such an average never falls, but
# it rises with each large gradient. Rounded at random, up with a probability of how far
# up the number is, its mean is right. So it is with parameters: one of 0.05 that gets a
# thousand updates of 0.00001 should end at 0.04.

# %%
ROUNDED = {
    "float32": (None, "black"),
    "bfloat16, nearest": ({"nu": bfloat16(stochastic=False)}, ORANGE),
    "bfloat16, at random": ({"nu": bfloat16()}, GREEN),
    "8 bits": ({"nu": blockwise(signed=False)}, BLUE),
}


def average(codecs):
    """The mean over 4096 elements of averages of squares, at each step."""
    tx = optax.scale_by_adam(b1=0.0, b2=0.999)
    tx = tx if codecs is None else ox.compress_state(tx, codecs)
    like = jnp.zeros((16, 256))

    def step(state, number):
        key = jax.random.fold_in(jax.random.key(2), number)
        _, state = tx.update(jax.random.normal(key, like.shape), state)
        inner = state if codecs is None else state.inner_state
        kept = inner.nu
        if codecs is not None:
            kept = codecs["nu"].decode(kept, like.shape)
        return state, jnp.mean(kept)

    run = jax.jit(lambda state: jax.lax.scan(step, state, jnp.arange(AVERAGED))[1])
    return np.asarray(run(tx.init(like)))


averages = {name: average(codecs) for name, (codecs, _) in ROUNDED.items()}

SMALL, MOVED = 1e-5, 1000
sgd = optax.sgd(SMALL)
MOVERS = {
    "float32": (sgd, jnp.float32, "black"),
    "bfloat16, nearest": (sgd, jnp.bfloat16, ORANGE),
    "bfloat16, at random": (ox.keep_bfloat16_params(sgd), jnp.bfloat16, GREEN),
    "bfloat16, Kahan": (ox.keep_bfloat16_params(sgd, "kahan"), jnp.bfloat16, PURPLE),
}


def path(tx, dtype):
    """The mean over 1000 parameters, at each step."""
    start = jnp.full(1000, 0.05, dtype)

    def step(carry, _):
        params, state = carry
        updates, state = tx.update(jnp.ones_like(params), state, params)
        params = optax.apply_updates(params, updates)
        return (params, state), jnp.mean(params.astype(jnp.float32))

    run = jax.jit(lambda carry: jax.lax.scan(step, carry, None, MOVED)[1])
    return np.asarray(run((start, tx.init(start))))


paths = {name: path(tx, dtype) for name, (tx, dtype, _) in MOVERS.items()}

figure, (left_panel, right_panel) = plt.subplots(1, 2, figsize=(11, 4))
for name, (_, color) in ROUNDED.items():
    look = WIDE if color == "black" else {"color": color, "linewidth": 1.5}
    left_panel.plot(averages[name], label=name, **look)
left_panel.set(xlabel="step", ylabel="average of squares")
left_panel.set_title("Squares of standard normal numbers, β = 0.999: mean of 4096")
left_panel.legend(loc="upper left")
for name, (_, _, color) in MOVERS.items():
    look = WIDE if color == "black" else {"color": color, "linewidth": 1.5}
    right_panel.plot(paths[name], label=name, **look)
right_panel.set(xlabel="step", ylabel="parameter")
right_panel.set_title(f"{MOVED} updates of −0.00001: mean of 1000 parameters")
right_panel.legend(loc="lower left")
plt.show()
for name, found in averages.items():
    ratio = found[-1] / averages["float32"][-1]
    print(f"average, {name}: {ratio:.3f} times that in float32 after {AVERAGED} steps")
for name, found in paths.items():
    print(f"parameter, {name}: {found[-1]:.4f}")

# %% [markdown]
# ## A run on digits
#
# Now Adam trains the network on digits, with the state in float32, in 8 bits, and with
# first moments in 4 bits; then with parameters in bfloat16, rounded to the nearest, as
# optax does it, and by `keep_bfloat16_params`. Of two learning rates, the lower one
# makes updates that are smaller than the last place of a parameter.

# %%
LOW_RATE = 0.0001
RUNS = {
    "float32": (None, jnp.float32, None, "black"),
    "8 bits": (EIGHT_BITS, jnp.float32, None, BLUE),
    "4 and 8 bits": (MIXED, jnp.float32, None, SKY),
    "bfloat16, nearest": (EIGHT_BITS, jnp.bfloat16, None, ORANGE),
    "bfloat16, at random": (EIGHT_BITS, jnp.bfloat16, "stochastic", GREEN),
    "bfloat16, Kahan": (EIGHT_BITS, jnp.bfloat16, "kahan", PURPLE),
}


def losses(codecs, dtype, mode, rate):
    """Training and test losses of all seeds, [seed, evaluation]."""
    tx = adam(rate, codecs)
    tx = tx if mode is None else ox.keep_bfloat16_params(tx, mode)
    run = jax.jit(jax.vmap(lambda seed: train(tx, seed, dtype)[1]))
    return [np.asarray(x) for x in run(seeds)]


found = {
    (name, rate): losses(codecs, dtype, mode, rate)
    for name, (codecs, dtype, mode, _) in RUNS.items()
    for rate in (LOW_RATE, RATE)
}
figure, panels = plt.subplots(1, 2, figsize=(12, 4.4))
evaluated = 10 * np.arange(1, STEPS // 10 + 1)
for axes, rate in zip(panels, (LOW_RATE, RATE), strict=True):
    for name, (*_, color) in RUNS.items():
        look = WIDE if color == "black" else {"color": color, "linewidth": 1.5}
        axes.plot(evaluated, np.median(found[name, rate][0], 0), label=name, **look)
    axes.set(xlabel="step", ylabel="training loss", yscale="log")
    axes.set_title(f"learning rate {rate:g}")
panels[0].set_yticks([0.5, 1, 2], ["0.5", "1", "2"], minor=False)
panels[0].yaxis.set_minor_formatter("")
panels[0].legend(loc="lower left")
figure.suptitle(
    f"Digits, Adam: medians of {SEEDS} seeds, mini-batches of 128", fontsize="medium"
)
plt.show()
for (name, rate), (train_loss, test_loss) in found.items():
    ends = np.median(train_loss[:, -1]), np.median(test_loss[:, -1])
    print(f"rate {rate:g}, {name}: training loss {ends[0]:.4f}, test {ends[1]:.3f}")

# %% [markdown]
# In 8 bits the curves are those of float32, and so are those of parameters in bfloat16
# whose rounding is at random or remembered. To the nearest, the lower learning rate
# loses most of its updates. First moments in 4 bits cost some progress in the first
# steps.
#
# ## When not to use it
#
# - **If the state fits.** Encoding takes time in each step, and the memory that it
#   saves is of no use then.
# - **For what has few elements,** such as biases and the scales of norms: there is
#   nothing to gain. `{".*/(bias|scale)": None, ...}` leaves them in float32.
# - **For second moments in 4 bits.** Their error changes each step by about a sixth.
# - **For copies of parameters in the state,** such as slow weights or averages.
# - **Where activations are what does not fit.** Try `jax.checkpoint` first.
#
# ## What was claimed, asserted
#
# Assertions for every statement above, on the numbers of this run.


# %%
def total(name):
    return plans[name].bytes_per_device / GIB


def median_loss(name, rate, which=0):
    return np.median(found[name, rate][which][:, -1])


# On paper: Adam fits without activations, AdaSmooth does not, and 8 bits leave room.
assert allocated < 1e6
assert round(total("Adam"), 1) == 14.6
assert total("AdaSmooth") > BUDGET
assert BUDGET - total("Adam, 8 bits") > 5
assert plans["Adam, 8 bits"].state_bytes < 0.26 * plans["Adam"].state_bytes
assert round(largest["16 bits, state in 8"] / largest["Adam"], 1) == 2.7

# A block: 8 bits are close, 4 bits are not.
for (bits, signed), kept in left_of.items():
    x = first if signed else second
    error = np.sqrt(np.mean((kept - x) ** 2) / np.mean(np.square(x)))
    assert error < 0.02 if bits == 8 else 0.05 < error < 0.3

# An average rises and does not fall, and a parameter stays, unless rounded at random or
# with its remainder.
for name, kept in averages.items():
    ratio = kept[-1] / averages["float32"][-1]
    if name == "bfloat16, nearest":
        assert ratio > (1.04 if SHORT else 1.4)
    else:
        assert abs(ratio - 1) < 0.01
for name, kept in paths.items():
    assert abs(kept[-1] - (0.05 if name == "bfloat16, nearest" else 0.04)) < 0.0005

# Digits: as in float32, but for rounding to the nearest at the low rate.
for rate in (LOW_RATE, RATE):
    for name in ("8 bits", "bfloat16, at random", "bfloat16, Kahan"):
        for which in (0, 1):
            ratio = median_loss(name, rate, which) / median_loss("float32", rate, which)
            assert abs(ratio - 1) < 0.02
    ratio = median_loss("4 and 8 bits", rate, 1) / median_loss("float32", rate, 1)
    assert abs(ratio - 1) < 0.1
progress = found["4 and 8 bits", RATE][0][:, 2], found["float32", RATE][0][:, 2]
assert np.all(progress[0] > progress[1])
nearest, right = (found[name, LOW_RATE][0] for name in ("bfloat16, nearest", "float32"))
assert np.all(nearest[:, -1] > 1.2 * right[:, -1])
print("every claim held")
