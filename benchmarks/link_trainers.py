"""A process of a pair that trains over a link, asked by lines of JSON.

Its arguments are the framework, its number, and the address of process 0. Requests are
``{"make": method}``, which builds a training anew, ``{"train": method, "steps": n}``,
``{"test": method}``, ``{"drop": method}``, which frees its memory, and
``{"moved": true}``. The answers are the bytes of a step by `wire_bytes`, the seconds of
each step, the loss on the windows for tests, nothing, and the bytes that the network
device has sent and received so far.
"""

import importlib
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from link_model import Data


def moved() -> list[int]:
    """Bytes that the network device of the link has sent, and received."""
    folder = Path("/sys/class/net/veth0/statistics")
    names = ("tx_bytes", "rx_bytes")
    return [int((folder / name).read_text()) for name in names]


def main() -> None:
    """Answers requests until there are no more."""
    framework, number, address = sys.argv[1], int(sys.argv[2]), sys.argv[3]
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cores[number % len(cores)]})
    os.setpriority(os.PRIO_PROCESS, 0, -20)  # before the machine's other work
    group = Path("/proc/self/autogroup")  # of this session, where Linux has them
    if group.exists():
        group.write_text("-20")
    os.environ["OMP_NUM_THREADS"] = "1"
    answers = os.fdopen(os.dup(1), "w")  # what libraries print goes elsewhere
    os.dup2(2, 1)
    data = Data(number)
    # Imports only one framework, and with the limits above.
    module = importlib.import_module(f"link_{framework}")
    trainers = module.Trainers(number, address, data)
    steps: dict[str, int] = {}
    for line in sys.stdin:
        request = json.loads(line)
        answer: Any
        if "make" in request:
            steps[request["make"]] = 0
            answer = trainers.make(request["make"])
        elif "train" in request:
            method, seconds = request["train"], []
            for _ in range(request["steps"]):
                rows = data.batch(steps[method])
                started = time.perf_counter()
                trainers.step(method, rows)
                seconds.append(time.perf_counter() - started)
                steps[method] += 1
            answer = seconds
        elif "test" in request:
            answer = trainers.test(request["test"])
        elif "drop" in request:
            answer = trainers.drop(request["drop"])
        else:
            answer = moved()
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
