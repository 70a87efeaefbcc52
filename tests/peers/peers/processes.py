"""Programs: started, awaited, measured, ended. Whatever runs ends with this process."""

import contextlib
import dataclasses
import os
import pathlib
import signal
import socket
import subprocess
import time

READY_WITHIN_S = 120
ENDED_WITHIN_S = 60


@dataclasses.dataclass
class Ended:
    """A program that has ended well."""

    seconds: float
    cpu_seconds: float
    stdout: str


def run(*command, stdin=None, environment=None, folder=None, within_s=3600):
    """Runs a program to its end; fails unless it ends well. Its times: wall clock, and processor with its children."""
    words = [str(word) for word in command]
    began = time.perf_counter()
    before = os.times()
    done = subprocess.run(
        words,
        stdin=stdin or subprocess.DEVNULL,
        capture_output=True,
        text=True,
        cwd=folder,
        env={**os.environ, **(environment or {})},
        timeout=within_s,
    )
    seconds = time.perf_counter() - began
    after = os.times()
    if done.returncode != 0:
        shown = " ".join(words)[:300]
        raise RuntimeError(f"{shown}: ended with {done.returncode}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}")
    # Only one program at a time is awaited like this, so all that ended children took since is its.
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    return Ended(seconds, cpu, done.stdout)


def free_ports(count):
    """Ports that nobody listens on, for programs that cannot choose one by themselves.

    Below 22,768, since such programs add 10,000 for a second port; and not those that the system gives out by itself.
    """
    ports = []
    with contextlib.ExitStack() as taken:
        for port in range(12_000, 22_000):
            probe = taken.enter_context(socket.socket())
            with contextlib.suppress(OSError):
                probe.bind(("127.0.0.1", port))
                ports.append(port)
            if len(ports) == count:
                return ports
    raise RuntimeError("there are no free ports")


class Service:
    """A program that runs until it is told to stop. Its output goes to a file."""

    def __init__(self, log, *command, environment=None, ready=None):
        self.log = pathlib.Path(log)
        self.began = time.perf_counter()
        with open(self.log, "ab") as file:
            self.process = subprocess.Popen(
                [str(word) for word in command],
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                env={**os.environ, **(environment or {})},
            )
        try:
            self.wait_until(ready or (lambda: True))
        except BaseException:
            self.process.kill()
            raise
        self.ready_s = time.perf_counter() - self.began

    def text(self):
        return self.log.read_text(errors="replace")

    def wait_until(self, ready):
        """Waits until `ready` says something, and returns that."""
        deadline = time.monotonic() + READY_WITHIN_S
        while not (said := ready()):
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{self.process.args[0]} is not ready:\n{self.text()[-3000:]}")
            time.sleep(0.005)
        return said

    def stop(self):
        if self.process.poll() is not None:
            raise RuntimeError(f"{self.process.args[0]} ended by itself:\n{self.text()[-3000:]}")
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(timeout=ENDED_WITHIN_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def status(self, name):
        """A field of /proc/PID/status, in bytes."""
        for line in open(f"/proc/{self.process.pid}/status"):
            if line.startswith(f"{name}:"):
                return int(line.split()[1]) * 1024
        raise KeyError(name)

    def peak_memory(self):
        return self.status("VmHWM")
