"""Two network namespaces, joined by a link of a given rate, and processes in them.

Each namespace has one end of a veth pair. A token bucket filter on each end limits what
leaves it, so that the link is as fast in both directions at once. Its ``latency`` is
the length of its queue, not a delay. gloo connects to the address of the host's name,
which a hosts file for each namespace maps to the namespace's own address.
"""

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import IO, Any

HOSTS = Path("/etc/netns")


def missing() -> str:
    """What such a link needs and is not there, or ""."""
    if sys.platform != "linux":
        return "Linux"
    if os.geteuid() != 0:
        return "root"
    programs = [name for name in ("ip", "tc") if shutil.which(name) is None]
    if programs:
        return f"`{'` and `'.join(programs)}` of iproute2"
    try:
        with SlowLink() as link:
            link.limit(100)
    except subprocess.CalledProcessError as error:
        return f"`{' '.join(error.cmd)}`, which failed: {error.stderr.strip()}"
    return ""


class SlowLink:
    """A link between two namespaces, and what to remove after its use.

    Attributes:
      names: of the namespaces.
      addresses: of their ends of the link.
    """

    def __init__(self) -> None:
        """Chooses names that no other process uses."""
        self.names = [f"link{os.getpid()}{end}" for end in "ab"]
        self.addresses = ["10.213.7.1", "10.213.7.2"]
        self._had_hosts = HOSTS.exists()
        self._processes: list[subprocess.Popen[str]] = []

    def __enter__(self) -> "SlowLink":
        """Makes the namespaces and the link, at full speed."""
        try:
            self._make()
        except BaseException:
            self.__exit__()
            raise
        return self

    def _make(self) -> None:
        for name in self.names:
            _run("ip", "netns", "add", name)
        ends = [["veth0", "netns", name] for name in self.names]
        _run("ip", "link", "add", *ends[0], "type", "veth", "peer", "name", *ends[1])
        for name, address in zip(self.names, self.addresses, strict=True):
            _run("ip", "-n", name, "address", "add", f"{address}/24", "dev", "veth0")
            for device in ("lo", "veth0"):
                _run("ip", "-n", name, "link", "set", device, "up")
            folder = HOSTS / name
            folder.mkdir(parents=True)
            hosts = f"127.0.0.1 localhost\n{address} {socket.gethostname()}\n"
            (folder / "hosts").write_text(hosts)

    def __exit__(self, *_: object) -> None:
        """Ends the processes, and removes all that was made."""
        for process in self._processes:
            process.kill()
            process.wait()
        for name in self.names:
            _run("ip", "netns", "delete", name, check=False)
            shutil.rmtree(HOSTS / name, ignore_errors=True)
        if not self._had_hosts and HOSTS.exists() and not any(HOSTS.iterdir()):
            HOSTS.rmdir()

    def limit(self, mbits: float | None) -> None:
        """Limits both directions to so many 10⁶ bits a second, or lifts the limit."""
        end = ("dev", "veth0", "root")
        for name in self.names:
            if mbits is None:
                _run("tc", "-n", name, "qdisc", "delete", *end, check=False)
            else:
                bucket = f"tbf rate {mbits:g}mbit burst 64kb latency 50ms".split()
                _run("tc", "-n", name, "qdisc", "replace", *end, *bucket)

    def start(self, *command: str) -> "Pair":
        """Starts a command at each end, with its number and the first end's address."""
        processes, logs = [], []
        for number, name in enumerate(self.names):
            log = tempfile.TemporaryFile("w+")  # noqa: SIM115, the process's own
            where = ["ip", "netns", "exec", name]
            process = subprocess.Popen(
                [*where, *command, str(number), self.addresses[0]],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                start_new_session=True,  # Ctrl-C is for this process, which ends them
            )
            self._processes.append(process)
            processes.append(process)
            logs.append(log)
        return Pair(processes, logs)


class Pair:
    """A process at each end, which answer lines of JSON with lines of JSON."""

    def __init__(
        self, processes: list[subprocess.Popen[str]], logs: list[IO[str]]
    ) -> None:
        """Takes the processes, and what they write to their standard error."""
        self._processes, self._logs = processes, logs

    def ask(self, **request: Any) -> list[Any]:
        """The answers of both processes to a request."""
        for process in self._processes:
            assert process.stdin is not None
            with contextlib.suppress(BrokenPipeError):  # `_answer` tells why
                process.stdin.write(f"{json.dumps(request)}\n")
                process.stdin.flush()
        return [self._answer(number) for number in range(len(self._processes))]

    def _answer(self, number: int) -> Any:
        stdout = self._processes[number].stdout
        assert stdout is not None
        if line := stdout.readline():
            return json.loads(line)
        self._logs[number].seek(0)
        tail = self._logs[number].read()[-2000:]
        raise RuntimeError(f"process {number} of a pair has ended:\n{tail}")


def _run(*command: str, check: bool = True) -> None:
    subprocess.run(command, check=check, capture_output=True, text=True)
