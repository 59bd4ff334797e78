"""Time of `import optax_extras` beside `import optax`: each in new processes, in turn."""

import argparse
import statistics
import subprocess
import sys
import time


def seconds(module: str) -> float:
    """Wall-clock of a new Python that imports a module."""
    started = time.perf_counter()
    subprocess.run([sys.executable, "-c", f"import {module}"], check=True)
    return time.perf_counter() - started


def main() -> None:
    """Prints the medians and the median of the paired ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=31)
    repeats = parser.parse_args().repeats
    seconds("optax_extras")  # compiles the bytecode
    pairs = [(seconds("optax"), seconds("optax_extras")) for _ in range(repeats)]
    for name, column in zip(("optax", "optax_extras"), zip(*pairs, strict=True)):
        print(f"{name:14} {1000 * statistics.median(column):7.1f} ms")
    ratio = statistics.median(ours / theirs for theirs, ours in pairs)
    print(f"{'ratio':14} {ratio:7.3f}")


if __name__ == "__main__":
    main()
