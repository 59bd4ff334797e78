"""How long methods train over a slow link until they have the loss of a dense run.

Each method starts anew. Its loss on text that is not trained on is taken, off the
clock, after every `BETWEEN` steps, or after every H where the workers exchange
something every H steps, of the parameters that they have agreed on. As it varies from
one evaluation to the next, a loss counts as reached at the first of two in a row that
are at or below it.

The goal is what dense holds from a given step on: the higher one of its losses at that
step and at the evaluation after it. Dense trains with SGD, and with AdamW at two rates;
the lowest goal counts. Its own time is taken by the same rule, and may end at an
earlier step.

After the given seconds, a method trains on over the unlimited link. Its rounds of H
steps, or of one, then count with the median of those over the slow link. So dense,
whose steps take equally long, need not train for hours.
"""

import dataclasses
import itertools
import statistics
from collections.abc import Callable

from link_methods import COMPRESSED, DEMO, DENSE_MEANS, LOCALLY, METHODS
from slow_link import Pair, SlowLink

BETWEEN = 10
LONGEST = 5  # times the steps of dense, after which a method has not reached the goal
COLUMNS = (
    *("Mbit/s", "method", "s to the goal", "times as fast", "steps", "loss", "MB sent"),
    *("kB a step, by `wire_bytes`", "ms a step", "s over the slow link"),
)


@dataclasses.dataclass(frozen=True)
class Point:
    """Where a training is at an evaluation."""

    steps: int
    seconds: float
    sent: int  # bytes by process 0, as its network device counts them
    loss: float


@dataclasses.dataclass(frozen=True)
class Training:
    """A training that has ended."""

    method: str
    wire: float  # bytes sent a step, by `wire_bytes`
    slow: float  # seconds over the slow link
    points: list[Point]


@dataclasses.dataclass
class Race:
    """A pair of processes, and the slow link over which they train."""

    pair: Pair
    link: SlowLink
    mbits: float
    limit: float  # seconds over the slow link
    steps: int  # of dense, until it holds the goal

    def run(self, only: tuple[str, ...]) -> None:
        """Prints the rows of dense, and of the methods with one of these starts."""
        dense = [
            self._train(method, lambda points: points[-1].steps > self.steps)
            for method in DENSE_MEANS
        ]
        best = min(dense, key=_held)
        goal = _held(best)
        fastest = _reached(best.points, goal)
        assert fastest is not None  # at the last but one, if not before
        for training in dense:
            print(self._row(training, goal, fastest.seconds), flush=True)

        def is_last(points: list[Point]) -> bool:
            is_long = len(points) > 1 and points[-1].steps >= LONGEST * self.steps
            return is_long or _reached(points, goal) is not None

        for method in (*COMPRESSED, *DEMO, *LOCALLY):
            if method.startswith(only):
                training = self._train(method, is_last)
                print(self._row(training, goal, fastest.seconds), flush=True)

    def _train(self, method: str, is_last: Callable[[list[Point]], bool]) -> Training:
        """Trains from the start, until the evaluations say that it was the last one."""
        every = METHODS[method].every
        self.link.limit(None)
        wire = self.pair.ask(make=method)[0][0]
        self.pair.ask(train=method, steps=every + 1)  # compiles all of it
        self.pair.ask(make=method)
        before = self.pair.ask(moved=True)[0][0]
        self.link.limit(self.mbits)
        slow: list[float] = []  # seconds of rounds over the slow link
        points: list[Point] = []
        steps, seconds, is_slow = 0, 0.0, True
        while not (points and is_last(points)):
            taken = sum(map(max, *self.pair.ask(train=method, steps=every)))
            if is_slow:
                slow.append(taken)
            steps += every
            seconds += slow[-1] if is_slow else statistics.median(slow)
            if is_slow and seconds >= self.limit:
                self.link.limit(None)
                is_slow = False
            if steps % BETWEEN == 0:
                sent = self.pair.ask(moved=True)[0][0] - before
                loss = self.pair.ask(test=method)[0]
                points.append(Point(steps, seconds, sent, loss))
        self.pair.ask(drop=method)
        return Training(method, wire, sum(slow), points)

    def _row(self, training: Training, goal: float, fastest: float) -> str:
        """A line of the table; `fastest` are the seconds of dense."""
        reached = _reached(training.points, goal)
        end = reached or training.points[-1]
        row = dict.fromkeys(COLUMNS, "")
        row |= {"Mbit/s": f"{self.mbits:g}", "method": training.method}
        row["s to the goal"] = f"{end.seconds:.1f}" if reached else "not reached"
        row["times as fast"] = f"{fastest / end.seconds:.1f}" if reached else ""
        row |= {"steps": str(end.steps), "loss": f"{end.loss:.3f}"}
        row["MB sent"] = f"{end.sent / 1e6:.2f}"
        row["kB a step, by `wire_bytes`"] = f"{training.wire / 1e3:.1f}"
        row["ms a step"] = f"{1000 * end.seconds / end.steps:.0f}"
        row["s over the slow link"] = f"{training.slow:.0f}"
        return f"| {' | '.join(row.values())} |"


def _held(training: Training) -> float:
    """The loss that the last two evaluations do not exceed."""
    return max(point.loss for point in training.points[-2:])


def _reached(points: list[Point], goal: float) -> Point | None:
    """The first of two points in a row that are at or below the goal."""
    for one, other in itertools.pairwise(points):
        if max(one.loss, other.loss) <= goal:
            return one
    return None
