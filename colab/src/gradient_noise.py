# %% [markdown]
# # Gradient noise that anneals
#
# Add Gaussian noise to every gradient, and let its variance decay as training goes on
# (Neelakantan et al. 2015, [arXiv 1511.06807](https://arxiv.org/abs/1511.06807)).
# Early on, enough noise leaves a place where plain descent would stay; later it is
# gone, and the method converges.
#
# You will see the annealing curve, how much noise it takes to leave a poor minimum (a
# hundred times the default), a network that cannot start without noise, one that does
# not need it, and what makes this noise repeatable:
# the same on 1 and 8 devices, after a restart, and at full resolution in bfloat16.
#
# In a hurry? `OPTAX_EXTRAS_SHORT=1` in the environment takes fewer steps and seeds.

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
import tempfile

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

import optax_extras as ox
from optax_extras.tuning import digits

# Before JAX starts: eight host devices, beside a GPU or TPU if there is one.
jax.config.update("jax_num_cpu_devices", 8)

SHORT = os.environ.get("OPTAX_EXTRAS_SHORT") == "1"
SEEDS = 5 if SHORT else 10
WALKERS = 40 if SHORT else 200  # seeds on the landscape, which are cheap
STEPS = 200 if SHORT else 600
GAMMA = 0.55  # the paper's exponent

BLUE, ORANGE, GREEN, PURPLE = "#0072B2", "#D55E00", "#009E73", "#CC79A7"
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


def draw(axes, x, values, label, color):
    """The median over seeds, the first axis, as a line; their range as a band."""
    axes.plot(x, np.median(values, 0), color=color, label=label)
    axes.fill_between(x, np.min(values, 0), np.max(values, 0), color=color, alpha=0.2)


print(f"{'short' if SHORT else 'full'} mode, {SEEDS} seeds, {STEPS} steps")

# %% [markdown]
# ## The method is one stage of a chain
#
# $$g_t \leftarrow g_t + \mathcal{N}(0, \sigma_t^2), \qquad
# \sigma_t^2 = \frac{\eta}{(1 + t)^\gamma}, \qquad t = 0, 1, 2, \dots$$
#
# Note that $\eta$ is a *variance*. The noise stage comes before the stage that scales
# the gradient, here the learning rate; any other transformation can follow it.

# %%
optimizer = optax.chain(
    ox.add_decayed_noise(eta=0.01, gamma=GAMMA, key=0),  # g + N(0, η / (1 + t)^γ)
    optax.scale_by_learning_rate(0.1),  # −α g
)

# %% [markdown]
# A gradient of zeros shows the noise alone. We run the stage over many steps with
# `lax.scan` and compare the standard deviation of its noise with $\sigma_t$.

# %%
ETA = 0.01
DRAWS = 10_000
HORIZON = 1000


def sigma(t, gamma):
    """The formula."""
    return np.sqrt(ETA / (1 + t) ** gamma)


@jax.jit
def measured_deviation(gamma):
    """The deviation of what the stage adds, at each step."""
    noise = ox.add_decayed_noise(ETA, gamma, key=0)
    zeros = jnp.zeros(DRAWS)

    def step(state, _):
        added, state = noise.update(zeros, state)
        return state, jnp.sqrt(jnp.mean(added**2))

    return jax.lax.scan(step, noise.init(zeros), None, length=HORIZON)[1]


times = np.arange(HORIZON)
shown = np.unique(np.geomspace(1, HORIZON, 13).astype(int)) - 1
gammas = [0.0, GAMMA, 1.0]
deviations = np.asarray(jax.vmap(measured_deviation)(jnp.array(gammas)))
annealing_error = max(
    np.max(np.abs(deviation / sigma(times, gamma) - 1))
    for gamma, deviation in zip(gammas, deviations, strict=True)
)

figure, axes = plt.subplots(figsize=(7, 4))
for gamma, deviation, color in zip(
    gammas, deviations, (ORANGE, BLUE, GREEN), strict=True
):
    axes.plot(1 + times, sigma(times, gamma), color=color, label=f"γ = {gamma:g}")
    axes.plot(1 + shown, deviation[shown], "o", color=color, markersize=5)
axes.set(xscale="log", yscale="log", xlabel="1 + t", ylabel="deviation σ of the noise")
axes.legend()
axes.set_title(
    f"Annealing: lines are the formula, dots what the stage adds\n"
    f"η = {ETA:g}, {DRAWS:,} elements, key 0"
)
plt.show()
print(f"largest relative error over {HORIZON} steps: {annealing_error:.3f}")

# %% [markdown]
# ## Leaving a poor minimum
#
# Two wells on a shallow bowl. Every walker starts in the shallower well, on the left;
# the better minimum is on the right. The loop is compiled once, and `vmap` runs it
# over seeds and over $\eta$. Each seed's key is split: one part for the start, one for
# the noise. The same seed starts at the same place with and without noise.
#
# The default, $\eta = 0.01$, is too little noise here, so the picture also shows
# $\eta = 1$. Beside them is Adam without noise: at a large learning rate its steps are
# long enough to leave.

# %%
POOR, GOOD = jnp.array([-1.0, 0.0]), jnp.array([1.0, 0.0])
WALK_RATE, WALK_STEPS, DEFAULT_ETA, WALK_ETA = 0.4, 500, 0.01, 1.0


def landscape(p):
    def well(centre, depth):
        return depth * jnp.exp(-2 * jnp.sum((p - centre) ** 2))

    return 0.1 * jnp.sum(p**2) - well(POOR, 0.2) - well(GOOD, 0.6)


def descend(start_key, optimizer, start):
    """The path of one seed, shape [WALK_STEPS, 2]."""
    params = start + 0.15 * jax.random.normal(start_key, (2,))

    def step(carry, _):
        params, state = carry
        updates, state = optimizer.update(jax.grad(landscape)(params), state)
        params = optax.apply_updates(params, updates)
        return (params, state), params

    carry = (params, optimizer.init(params))
    return jax.lax.scan(step, carry, None, length=WALK_STEPS)[1]


def walk(key, eta, start):
    """Descent with noise."""
    start_key, noise_key = jax.random.split(key)
    optimizer = optax.chain(
        ox.add_decayed_noise(eta, GAMMA, key=noise_key),
        optax.scale_by_learning_rate(WALK_RATE),
    )
    return descend(start_key, optimizer, start)


def walk_with_adam(key, rate):
    """Adam without noise, from the same starts."""
    return descend(jax.random.split(key)[0], optax.adam(rate), POOR)


over_seeds = jax.vmap(walk, in_axes=(0, None, None))
over_etas = jax.jit(jax.vmap(over_seeds, in_axes=(None, 0, None)))
keys = jax.random.split(jax.random.key(0), WALKERS)
etas = np.array([0, 0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30], np.float32)
paths = {
    name: np.asarray(over_etas(keys, etas, start))
    for name, start in (("poor", POOR), ("good", GOOD))
}


def share_in_good(paths):
    """The share of seeds that end near the good minimum, for each η."""
    return np.mean(np.linalg.norm(paths[..., -1, :] - GOOD, axis=-1) < 0.5, axis=-1)


share = {name: share_in_good(path) for name, path in paths.items()}
without = 0
by_default, with_noise = (
    int(np.argmin(abs(etas - e))) for e in (DEFAULT_ETA, WALK_ETA)
)
adam_rates = np.array([0.1, 0.4, 1.0], np.float32)
over_rates = jax.vmap(jax.vmap(walk_with_adam, (0, None)), (None, 0))
adam_paths = np.asarray(jax.jit(over_rates)(keys, adam_rates))
adam_share = share_in_good(adam_paths)
for rate, good in zip(adam_rates, adam_share, strict=True):
    print(f"Adam without noise, learning rate {rate:g}: {good:.1%} leave the poor well")

# %% picture="gradient-noise-landscape"
grid_x, grid_y = np.meshgrid(np.linspace(-2, 2, 161), np.linspace(-1.4, 1.4, 113))
points = jnp.stack([grid_x, grid_y], -1).reshape(-1, 2)
heights = np.asarray(jax.vmap(landscape)(points)).reshape(grid_x.shape)
drawn = 12

columns = (
    ("η = 0.01, the default", paths["poor"][by_default], ORANGE),
    ("η = 1, a hundred times it", paths["poor"][with_noise], BLUE),
    ("no noise, Adam at rate 1", adam_paths[-1], GREEN),
)
figure, panels = plt.subplots(1, 3, figsize=(12, 3.7), sharex=True, sharey=True)
for axes, (name, walked, color) in zip(panels, columns, strict=True):
    axes.grid(False)
    axes.contour(grid_x, grid_y, heights, levels=24, cmap="Greys_r", linewidths=0.7)
    some = walked[:drawn]
    for path in some:
        axes.plot(*path.T, color=color, alpha=0.35, linewidth=0.6)
    axes.plot(*some[:, -1].T, "o", color=color, markersize=7, markeredgecolor="black")
    axes.set(xlabel="x", xticks=range(-2, 3), xlim=(-2, 2), ylim=(-1.4, 1.4))
    axes.set_aspect("equal")
    axes.set_title(f"{name}:\n{share_in_good(walked):.0%} end in the right well")
panels[0].set_ylabel("y")
figure.suptitle(
    f"Paths of {drawn} of {WALKERS} seeds; dots are their ends. SGD at learning rate"
    f" {WALK_RATE}, γ = {GAMMA}, {WALK_STEPS} steps",
    fontsize="medium",
)
plt.show()

# %% [markdown]
# ### How much noise, and when it harms
#
# The same program runs over a grid of $\eta$, and from both wells. With too little
# noise, the default among it, no walker leaves its well. Too much noise does not decay
# within the run, and even walkers that started in the better well leave it.

# %%
figure, axes = plt.subplots(figsize=(7, 4))
position = np.arange(len(etas))
axes.plot(position, share["poor"], "o-", color=BLUE, label="from the poor well")
axes.plot(position, share["good"], "s--", color=ORANGE, label="from the good well")
axes.set_xticks(position, [f"{eta:g}" for eta in etas])
axes.set(xlabel="η, the variance at t = 0", ylabel="share that ends in the good well")
axes.legend()
axes.set_title(
    f"{WALKERS} seeds each, learning rate {WALK_RATE}, γ = {GAMMA}, {WALK_STEPS} steps"
)
plt.show()
for eta, poor, good in zip(etas, share["poor"], share["good"], strict=True):
    print(f"η = {eta:5g}: from the poor well {poor:5.1%}, from the good {good:5.1%}")

# %% [markdown]
# ## Digits
#
# Real data: scikit-learn's handwritten digits and a network with one hidden layer. The
# loop is written out. Every seed's key is split into four: initial parameters, order
# of the examples, the loss (for those that draw, as with dropout; this one does not)
# and the noise. The initial parameters are multiplied by `scale`: 1 leaves them as they
# were drawn, 0 makes them zero.

# %%
task = digits(batch_size=128)
RATE = 0.1
EVALUATIONS = 20


@jax.jit
@jax.vmap
def prepare(key):
    """What a seed draws, but for the noise, of which it has the key."""
    init_key, order_key, loss_key, noise_key = jax.random.split(key, 4)
    rows = task.batches.plan(order_key, jnp.int32(0), STEPS)
    rows = rows.reshape(EVALUATIONS, -1, *rows.shape[1:])
    keys = jax.random.split(loss_key, rows.shape[:2])
    return task.init(init_key), (rows, keys), noise_key


def step_of(optimizer):
    """One step of training, for `lax.scan`."""

    def step(carry, entry):
        params, state = carry
        rows, key = entry
        gradient = jax.grad(task.loss)(params, task.batches.take(rows), key)
        updates, state = optimizer.update(gradient, state, params)
        return (optax.apply_updates(params, updates), state), None

    return step


def train(seed, eta, scale, dtype):
    """The task's metrics over the training of one seed."""
    params, entries, noise_key = seed
    params = jax.tree.map(lambda p: (scale * p).astype(dtype), params)
    optimizer = optax.chain(
        ox.add_decayed_noise(eta, GAMMA, key=noise_key),
        optax.scale_by_learning_rate(RATE),
    )
    step = step_of(optimizer)

    def segment(carry, entries):
        carry, _ = jax.lax.scan(step, carry, entries)
        return carry, task.evaluate(carry[0])

    return jax.lax.scan(segment, (params, optimizer.init(params)), entries)[1]


over_seeds = jax.vmap(train, in_axes=(0, None, None, None))
over_etas = jax.vmap(over_seeds, in_axes=(None, 0, None, None))
compiled = jax.jit(over_etas, static_argnums=3)
seeds = prepare(jax.random.split(jax.random.key(1), SEEDS))


def train_all(etas, scale, dtype=jnp.float32):
    """Metrics for each η and seed; each of shape [η, seed, evaluation]."""
    return jax.device_get(compiled(seeds, etas, scale, dtype))


digit_etas = np.array([0, 0.001, 0.01, 0.1, 1], np.float32)
from_zeros = train_all(digit_etas, scale=0.0)
from_draw = train_all(digit_etas, scale=1.0)
evaluated = np.arange(1, EVALUATIONS + 1) * (STEPS // EVALUATIONS)
NONE, SMALL, LARGE = 0, 2, 4  # no noise, the paper's smallest η, its largest

# %% [markdown]
# ### Where it works: a network that cannot start
#
# If all parameters are zero, the gradient of both layers' weights is exactly zero,
# because each has the other layer as a factor. Plain descent learns only the biases of
# the last layer. Noise breaks this symmetry, and the network trains.

# %%
figure, axes = plt.subplots(figsize=(7, 4))
for index, color in ((NONE, ORANGE), (SMALL, BLUE)):
    label = f"η = {digit_etas[index]:g}"
    draw(axes, evaluated, from_zeros["train_loss"][index], label, color)
axes.set(yscale="log", xlabel="step", ylabel="training loss")
axes.legend(loc="center right")
axes.set_title(
    f"Digits from zero parameters: median and range of {SEEDS} seeds\n"
    f"SGD, learning rate {RATE}, mini-batches of 128, γ = {GAMMA}"
)
plt.show()


def describe(metrics, index):
    loss, accuracy = (metrics[k][index, :, -1] for k in ("train_loss", "test_accuracy"))
    print(
        f"η = {digit_etas[index]:5g}: training loss {np.median(loss):.4f}"
        f" ({loss.min():.4f} to {loss.max():.4f}),"
        f" test accuracy {np.median(accuracy):.3f}"
        f" ({accuracy.min():.3f} to {accuracy.max():.3f})"
    )


for index in range(len(digit_etas)):
    describe(from_zeros, index)

# %% [markdown]
# ### Where it does not help: a network that starts well
#
# A good random start has no such symmetry. A little noise changes the loss by less than
# the seeds differ from each other; a lot of noise does harm.

# %%
figure, axes = plt.subplots(figsize=(7, 4))
finals = from_draw["train_loss"][:, :, -1]
position = np.arange(len(digit_etas))
axes.plot(position, np.median(finals, 1), "_", color="black", markersize=26)
axes.plot(np.repeat(position, SEEDS), finals.ravel(), "o", color=BLUE, alpha=0.5)
axes.set_xticks(position, [f"{eta:g}" for eta in digit_etas])
axes.set(yscale="log", xlabel="η, the variance at t = 0", ylabel="final training loss")
axes.set_title(
    f"Digits from a random start: each of {SEEDS} seeds, and their median\n"
    f"SGD, learning rate {RATE}, mini-batches of 128, γ = {GAMMA}, {STEPS} steps"
)
plt.show()
for index in range(len(digit_etas)):
    describe(from_draw, index)
paired = finals[SMALL] - finals[NONE]
print(
    f"η = {digit_etas[SMALL]:g} against none, seed by seed: {np.median(paired):+.4f},"
    f" lower in {np.sum(paired < 0)} of {SEEDS}"
)

# %% [markdown]
# ## The same noise on 1 device, on 8, and after a restart
#
# The noise of an element depends on the key, the step, the path of its leaf and its
# index in the whole leaf, and on nothing else. So a sharded run draws the same numbers,
# each device its own part; and a checkpoint needs only the state's two arrays, the
# count and the key. (To pass your own key at each step, use `update(..., key=k)`.)
#
# We train on one device, save half-way, and continue in three ways: without a break,
# from the file, and from the file on eight devices. JAX makes the eight devices from
# the host's CPU, so that this runs anywhere.

# %%
HALF = 20
host = jax.devices("cpu")
mesh = Mesh(np.array(host[:8]), ("shards",))
optimizer = optax.chain(
    ox.add_decayed_noise(0.01, GAMMA, key=0), optax.scale_by_learning_rate(RATE)
)


def spread(tree):
    """Leaves cut along their first axis where eight devices can share it."""

    def place(leaf):
        divides = leaf.ndim > 0 and leaf.shape[0] % 8 == 0 and leaf.size >= 64
        axes = PartitionSpec("shards") if divides else PartitionSpec()
        return jax.device_put(leaf, NamedSharding(mesh, axes))

    return jax.tree.map(place, tree)


@jax.jit
def advance(carry, rows, keys):
    return jax.lax.scan(step_of(optimizer), carry, (rows, keys))[0]


# The first seed, on the first of them.
first = jax.device_put(jax.tree.map(lambda x: x[0], seeds), host[0])
params, (rows, keys), _ = first
rows, keys = (x.reshape(-1, *x.shape[2:])[: 2 * HALF] for x in (rows, keys))
half_way = advance((params, optimizer.init(params)), rows[:HALF], keys[:HALF])

with tempfile.TemporaryDirectory() as folder:
    path = os.path.join(folder, "checkpoint.npz")
    np.savez(path, *jax.tree.leaves(half_way))
    with np.load(path) as file:
        loaded = [jnp.asarray(array) for array in file.values()]
restored = jax.tree.unflatten(jax.tree.structure(half_way), loaded)

one = advance(half_way, rows[HALF:], keys[HALF:])
resumed = advance(restored, rows[HALF:], keys[HALF:])
eight = advance(spread(restored), *spread((rows[HALF:], keys[HALF:])))


def distance(a, b):
    """The largest difference of any parameter."""
    pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    return max(np.max(np.abs(np.asarray(x) - np.asarray(y))) for x, y in pairs)


@jax.jit
def noise_alone(params, state):
    """The update of a gradient of zeros, without the learning rate's sign and scale."""
    return optimizer.update(jax.tree.map(jnp.zeros_like, params), state)[0]


noise_one, noise_eight = noise_alone(*one), noise_alone(*spread(one))
shards = len(jax.tree.leaves(noise_eight)[-1].sharding.device_set)
resumed_distance = distance(resumed[0], one[0])
eight_distance = distance(eight[0], one[0])
noise_distance = distance(noise_one, noise_eight)
print(
    f"noise of step {2 * HALF} on 1 device and on {shards}: {noise_distance:.1e} apart"
)
print(f"parameters without a break and from the file: {resumed_distance:.1e} apart")
print(f"parameters on 1 device and, from the file, on 8: {eight_distance:.1e} apart")

# %% [markdown]
# ## bfloat16
#
# `optax.add_noise` has the same formula and draws in the gradient's own dtype. In
# bfloat16 its samples have few distinct values and the tail is cut off.
# `add_decayed_noise` draws at float32 resolution and rounds once, when it adds the
# noise. The picture shows how rarely a sample exceeds $x$ standard deviations.

# %%
SAMPLES = 100_000 if SHORT else 1_000_000
zero_gradient = jnp.zeros(SAMPLES, jnp.bfloat16)


def samples(noise):
    added, _ = noise.update(zero_gradient, noise.init(zero_gradient))
    return np.asarray(added, np.float64)


noises = {
    "add_decayed_noise": (samples(ox.add_decayed_noise(1.0, GAMMA, key=0)), BLUE),
    "optax.add_noise": (
        samples(optax.add_noise(1.0, GAMMA, jax.random.key(0))),
        ORANGE,
    ),
}
x = np.linspace(0, 4.5, 181)
normal = jax.scipy.special.erfc(x / np.sqrt(2))
figure, axes = plt.subplots(figsize=(7, 4))
axes.plot(x, normal, color="black", linewidth=4, alpha=0.3, label="a Gaussian")
for name, (z, color) in noises.items():
    exceeding = 1 - np.searchsorted(np.sort(np.abs(z)), x, side="right") / SAMPLES
    exceeding[exceeding == 0] = np.nan
    axes.plot(x, exceeding, color=color, label=name)
axes.set(yscale="log", xlabel="x, in deviations", ylabel="share of samples beyond x")
axes.legend(loc="lower left")
axes.set_title(f"Noise on a bfloat16 gradient: {SAMPLES:,} samples, σ = 1, key 0")
plt.show()

distinct = {name: len(np.unique(z)) for name, (z, _) in noises.items()}
largest = {name: np.max(np.abs(z)) for name, (z, _) in noises.items()}
for name in noises:
    print(
        f"{name}: {distinct[name]} values, the largest {largest[name]:.2f} deviations"
    )

# %% [markdown]
# The same training loop with bfloat16 parameters, and so bfloat16 gradients. Here a
# little noise *lowers* the loss also from a good random start. The likely reason is
# rounding: an update too small to change a bfloat16 parameter is lost, and noise, like
# dither in audio, lets some of these updates take effect.

# %%
in_bfloat16 = train_all(digit_etas, scale=1.0, dtype=jnp.bfloat16)
for index in range(len(digit_etas)):
    describe(in_bfloat16, index)

# %% [markdown]
# ## What was claimed, asserted
#
# Assertions for every statement above, on the numbers of this run: medians over the
# seeds, and ranges where they must overlap or must not.


# %%
def final(metrics, index, name="train_loss"):
    return metrics[name][index, :, -1]


def overlap(a, b):
    """Whether the ranges of two sets of seeds meet."""
    return max(a.min(), b.min()) <= min(a.max(), b.max())


# The stage adds what the formula says.
assert annealing_error < 0.05

# A hundred times the default leaves the poor well, the default and none do not, and too
# much stays nowhere. Adam leaves without noise, at a large rate.
assert share["poor"][without] == share["poor"][by_default] == 0
assert share["poor"][with_noise] > 0.7
assert adam_share[-1] == 1
assert share["good"][with_noise] > 0.95
assert share["good"][-1] < 0.5

# From zeros every seed stays at chance without noise, and none does with it.
assert np.all(final(from_zeros, NONE) > 2.29)
assert np.all(final(from_zeros, NONE, "test_accuracy") < 0.15)
assert np.all(final(from_zeros, SMALL) < 0.5)
assert np.all(final(from_zeros, SMALL, "test_accuracy") > 0.85)

# From a sound start a little noise changes less than a seed does, and a lot does harm.
assert overlap(final(from_draw, NONE), final(from_draw, SMALL))
assert abs(np.median(paired)) < np.ptp(finals[NONE])
assert np.all(final(from_draw, LARGE) > final(from_draw, NONE))

# One device or eight, with a break or without.
assert shards == 8
assert noise_distance < 1e-6
assert resumed_distance == 0
assert eight_distance < 1e-5

# bfloat16: many values and the tail of a Gaussian, and a loss that noise lowers.
assert distinct["optax.add_noise"] < 200 < 1000 < distinct["add_decayed_noise"]
assert largest["optax.add_noise"] < 3 < 4 < largest["add_decayed_noise"]
assert np.median(final(in_bfloat16, SMALL)) < np.median(final(in_bfloat16, NONE))
assert np.median(final(in_bfloat16, NONE)) > np.median(final(from_draw, NONE))
print("every claim held")
