"""Training over a slow link, with dense and with compressed gradients.

Two processes train one model on one core each, in two network namespaces that a link of
a limited rate joins, with optax and optax_extras over gloo. Two more do so with torch's
`DistributedDataParallel` and its hooks, if torch is installed. For each rate, each
method starts anew, and takes eight steps over the unlimited link; torch's hook of
PowerSGD sends dense gradients in the first two. Then the methods take turns, until each
has trained for the given time over the slow link. For each method the program prints

- the median time of a step, that of the last unlimited ones, and how many times as fast
  as our dense step it is;
- the bytes that the network device of process 0 has sent and received in a step, and
  those that `optax_extras.wire_bytes` counts;
- the steps in the given time, and the loss after them on text that is not trained on.

With ``--to-loss``, methods with optax and optax_extras train until they have the loss
of a dense run, as `link_race` says, among them those whose workers train alone between
exchanges.

It needs Linux, root, and `ip` and `tc` of iproute2, and removes what it makes.
"""

import argparse
import dataclasses
import importlib.metadata
import importlib.util
import os
import signal
import statistics
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

import link_race
from link_methods import COMPRESSED
from link_model import DENSE, LOCAL
from link_race import BETWEEN, Race
from slow_link import Pair, SlowLink, missing

METHODS = {
    "jax": (LOCAL, DENSE, *COMPRESSED),
    "torch": (
        LOCAL,
        DENSE,
        "fp16",
        *(f"PowerSGD, rank {rank}" for rank in (2, 4)),
    ),
}
Times = list[tuple[float, float]]  # rates in Mbit/s, and seconds

WORKER = sys.executable, str(Path(__file__).with_name("link_trainers.py"))
NAMES = {"jax": "optax_extras", "torch": "torch"}
UNTIMED, UNLIMITED = 3, 5  # steps before the link is limited
COLUMNS = (
    *("Mbit/s", "method", "ms", "unlimited", "times as fast", "MB sent, received"),
    *("by `wire_bytes`", "steps", "loss"),
)


@dataclasses.dataclass
class Training:
    """A method on a pair of processes, at one rate."""

    pair: Pair
    framework: str
    method: str
    wire: list[int] | None = None  # bytes sent and received, by `wire_bytes`
    unlimited: float = 0.0  # seconds of a step
    seconds: list[float] = dataclasses.field(default_factory=list)
    moved: list[int] = dataclasses.field(default_factory=lambda: [0, 0])
    steps: int = 0  # in the given time
    loss: float = 0.0  # after them

    @property
    def median(self) -> float:
        """Median time of a step in seconds."""
        return statistics.median(self.seconds)

    def start(self) -> None:
        """Starts anew, with untimed steps."""
        self.wire = self.pair.ask(make=self.method)[0]
        self.pair.ask(train=self.method, steps=UNTIMED)
        self.unlimited = statistics.median(self._steps(UNLIMITED))
        self.loss = self.pair.ask(test=self.method)[0]

    def train_until(self, end: float) -> None:
        """Trains for so many seconds in all, or for one step if that takes longer."""
        if not self.seconds:
            self._train(1)
        while (steps := int((end - sum(self.seconds)) / self.median)) > 0:
            self._train(steps)

    def _train(self, steps: int) -> None:
        before = self.pair.ask(moved=True)[0]
        self.seconds += self._steps(steps)
        after = self.pair.ask(moved=True)[0]  # when both have got everything
        for i, (low, high) in enumerate(zip(before, after, strict=True)):
            self.moved[i] += high - low

    def _steps(self, steps: int) -> list[float]:
        """Seconds of each step, of the slower process."""
        return list(map(max, *self.pair.ask(train=self.method, steps=steps)))

    def finish(self, end: float) -> None:
        """Takes the loss, which stays that of the start if one step took too long."""
        self.steps = len(self.seconds) if sum(self.seconds) <= 1.1 * end else 0
        if self.steps:
            self.loss = self.pair.ask(test=self.method)[0]

    def row(self, mbits: float, dense: float) -> str:
        """A line of the table; `dense` is the median time of our dense step."""
        row = dict.fromkeys(COLUMNS, "")
        row |= {"Mbit/s": f"{mbits:g}", "unlimited": f"{1000 * self.unlimited:.0f}"}
        row["method"] = f"{NAMES[self.framework]}, {self.method}"
        if self.seconds:
            row["ms"] = f"{1000 * self.median:.0f}"
            row["times as fast"] = f"{dense / self.median:.1f}"
            moved = (n / len(self.seconds) for n in self.moved)
            row["MB sent, received"] = _megabytes(moved)
            row["by `wire_bytes`"] = _megabytes(self.wire or ())
            row |= {"steps": str(self.steps), "loss": f"{self.loss:.2f}"}
        return f"| {' | '.join(row.values())} |"


def _megabytes(sizes: Iterable[float]) -> str:
    return ", ".join(f"{size / 1e6:.3f}" for size in sizes)


def measure(
    trainings: list[Training], link: SlowLink, mbits: float, seconds: float, rounds: int
) -> None:
    """Prints the rows of one rate."""
    for training in trainings:
        training.start()
    limited = [one for one in trainings if one.method != LOCAL]
    link.limit(mbits)
    for number in range(1, rounds + 1):
        for training in limited:
            training.train_until(seconds * number / rounds)
    link.limit(None)
    for training in limited:
        training.finish(seconds)
    dense = next(one.median for one in limited if one.method == DENSE)
    for training in trainings:
        print(training.row(mbits, dense), flush=True)


def _leave(*_: object) -> None:
    """Leaves the program once, which removes the link."""
    for one in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(one, signal.SIG_IGN)
    sys.exit("interrupted")


def time_steps(
    link: SlowLink, times: Times, only: tuple[str, ...], rounds: int
) -> None:
    """Prints the table of steps."""
    frameworks = ["jax", "torch"]
    if importlib.util.find_spec("torch") is None:
        frameworks.remove("torch")
        print("torch is not installed: its rows are left out")
    _print_head(frameworks, COLUMNS)
    pairs = {name: link.start(*WORKER, name) for name in frameworks}
    for mbits, seconds in times:
        trainings = [
            Training(pairs[framework], framework, method)
            for framework in frameworks
            for method in METHODS[framework]
            if method.startswith(only)
        ]
        measure(trainings, link, mbits, seconds, rounds)


def race(link: SlowLink, times: Times, only: tuple[str, ...], steps: int) -> None:
    """Prints the table of times to the loss of dense."""
    _print_head(["jax"], link_race.COLUMNS)
    pair = link.start(*WORKER, "jax")
    for mbits, seconds in times:
        Race(pair, link, mbits, seconds, steps).run(only)


def _print_head(frameworks: list[str], columns: Sequence[str]) -> None:
    versions = (f"{one} {importlib.metadata.version(one)}" for one in frameworks)
    print(f"{', '.join(versions)}, {os.cpu_count()} cores")
    print(f"| {' | '.join(columns)} |\n|{'---|' * len(columns)}", flush=True)


def main() -> None:
    """Measures the rates given on the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--to-loss", type=int, nargs="?", const=100, metavar="STEPS")
    parser.add_argument("--rates", type=float, nargs="*")
    parser.add_argument("--seconds", type=float, nargs="*", help="one for each rate")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", nargs="*", default=[], help="starts of methods")
    arguments = parser.parse_args()
    steps = arguments.to_loss
    if steps is not None and (steps < BETWEEN or steps % BETWEEN):
        parser.error(f"`--to-loss` must be a multiple of {BETWEEN}, got {steps}")
    rates = arguments.rates or ([1000, 100, 10] if steps is None else [100, 10])
    seconds = arguments.seconds or ([4, 10, 30] if steps is None else [60, 60])
    times = list(zip(rates, seconds, strict=True))
    if need := missing():
        print(f"nothing was measured: a link of a limited rate needs {need}")
        return
    for one in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(one, _leave)
    started = time.monotonic()
    only = (DENSE, *arguments.only) if arguments.only else ("",)
    with SlowLink() as link:
        if steps is None:
            time_steps(link, times, only, arguments.rounds)
        else:
            race(link, times, only, steps)
    print(f"{time.monotonic() - started:.0f} s in all")


if __name__ == "__main__":
    main()
