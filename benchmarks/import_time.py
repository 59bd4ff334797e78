"""Compares the time of `import optax_extras` and `import optax` in new processes."""

import argparse
import statistics
import subprocess
import sys
import time


def seconds(module: str) -> float:
    """Wall-clock time of a new Python process that imports a module."""
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
    theirs, ours = (statistics.median(column) for column in zip(*pairs, strict=True))
    print(f"import optax         {1000 * theirs:7.1f} ms")
    print(f"import optax_extras  {1000 * ours:7.1f} ms")
    print(f"median of the ratios {statistics.median(b / a for a, b in pairs):7.3f}")


if __name__ == "__main__":
    main()
