"""Two processes over gloo do what one does, and agree to the bit."""

import socket

import numpy as np
import pytest

from communication.methods import LOCAL, trained
from communication.scripts import popen
from communication.workers import gradients

pytestmark = pytest.mark.slow

NAMES = ["top_k", "8 bit", "4 bit", "low_rank", "dgc", "demo", *LOCAL]
DENSE = {"low_rank", "fedavg"}


def pair_of_processes(folder):
    """What `trained` takes of the four devices of two processes, (steps, 4, ...)."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = f"localhost:{free.getsockname()[1]}"
    logs = [folder / f"{i}.log" for i in range(2)]
    processes = []
    try:
        for i, log in enumerate(logs):
            with log.open("w") as stderr:
                arguments = address, i, folder / f"{i}.npz", *NAMES
                processes.append(
                    popen("process.py", *arguments, devices=2, stderr=stderr)
                )
        codes = [process.wait(timeout=300) for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.wait()
    assert codes == [0, 0], "\n".join(log.read_text() for log in logs)
    halves = [dict(np.load(folder / f"{i}.npz")) for i in range(2)]
    return {k: np.concatenate([half[k] for half in halves], axis=1) for k in halves[0]}


def are_equal(copies):
    """Whether those of a step are the same, bit for bit."""
    return (copies == copies[:, :1]).reshape(len(copies), -1).all(axis=1)


def test_two_processes_do_what_one_does(tmp_path):
    pair = pair_of_processes(tmp_path)
    for name in NAMES:
        alone, _ = trained(name, gradients(5))
        for leaf, expected in alone.items():
            label = f"{name}/{leaf}"
            copies = pair[label]
            if name in LOCAL:  # each device has its worker's, (1, *shape)
                copies = copies[:, :, 0]
            else:
                expected = np.stack([expected] * 4, axis=1)
            agreed = are_equal(expected)
            assert agreed.any()
            np.testing.assert_array_equal(are_equal(copies), agreed, err_msg=label)
            # A sum over gloo adds in another order than one between devices: dense
            # means and factors differ in their last bits, gathers of bytes do not.
            atol = 1e-6 if leaf == "b" or name in DENSE else 0
            np.testing.assert_allclose(
                copies, expected, rtol=0, atol=atol, err_msg=label
            )
