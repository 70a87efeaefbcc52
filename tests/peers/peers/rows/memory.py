"""Memory: many transfers at once; and what is beyond: one very large blob, a crowd of clients."""

import os

from ..ours import Ours
from ..stage import MIB, size
from ..table import Row, mb_s, number, rate


def measure(stage):
    return [*transfers(stage), *whale(stage), *crowd(stage)]


def transfers(stage):
    """On services of their own: a peak is one since the start."""
    at_once, each_bytes = stage.form.transfers
    ours = stage.started(Ours(stage.folder / "transfers"))
    stage.disk.calm()
    phases = ours.bench("both", size=each_bytes, concurrency=at_once, count=at_once, keep=True, warm_up="0s")
    work = f"with {at_once} puts and {at_once} gets of {size(each_bytes)} at once, the peak"
    rows = []
    for process in phases["get"]["processes"]:
        peak = process["peak_memory_bytes"] / MIB
        judged = {} if process["name"] == "client" else {"value": peak, "target": ("<=", 100), "unit": " MiB"}
        rows.append(Row(f"memory of {process['name']} {work}", "-", f"{number(peak)} MiB", **judged))
    for phase in ("put", "get"):
        speed = mb_s(phases[phase]["bytes_per_second"], 1)
        rows.append(Row(f"{phase} of {size(each_bytes)}, {at_once} at once, to and from disk", "-", speed))
    return rows


def whale(stage):
    """A blob of zeros, since a sparse file of any size is there at once."""
    ours, bytes_ = stage.started(Ours(stage.folder / "whale")), stage.form.whale_bytes
    source = stage.folder / "whale.bin"
    source.touch()
    os.truncate(source, bytes_)
    stage.disk.calm()
    put = ours.put(source)
    got = ours.get(*put.ids)
    peak = max(ours.metadata.peak_memory(), ours.chunk.peak_memory()) / MIB
    shown = f"{mb_s(bytes_, put.seconds)}, {mb_s(bytes_, got.seconds)}"
    return [Row(f"PUT and GET of a blob of {size(bytes_)}, services' memory at most {number(peak)} MiB", "-", shown)]


def crowd(stage):
    clients = stage.form.crowd
    ours = stage.started(Ours(stage.folder / "crowd"))
    stage.disk.calm()
    phases = ours.bench("both", clients=clients, concurrency=clients, count=20 * clients, keep=True)
    shown = ", ".join(rate(phases[phase]["operations_per_second"]) for phase in ("put", "get"))
    peak = max(process["peak_memory_bytes"] for process in phases["get"]["processes"][1:]) / MIB
    work = f"PUT and GET 4 KiB from {clients:,} clients at once, services' memory at most {number(peak)} MiB"
    return [Row(work, "-", shown)]
