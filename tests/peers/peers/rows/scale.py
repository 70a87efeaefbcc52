"""The same work over few blobs and over many; starting, listing and memory with many."""

import statistics

from ..ours import Ours
from ..stage import MIB
from ..table import Row, number, rate
from ..turns import in_turn

# Blobs of the stores. Small, so that a million of them is no more than their files.
SIZE = 128
SEED = 9_000
WORK = {"commit": ("put", 0), "read": ("get", 1), "delete": ("delete", 2)}


def measure(stage):
    stores = {count: fill(stage, count) for count in stage.form.blobs}
    rows = []
    for count, store in stores.items():
        rows += listing(stage, count, store)
    rows += costs(stage, stores)
    most = max(stores)
    peaks = memory(stores[most])
    rows += starts(stage, most, stores[most])
    for name, peak in memory(stores[most]).items():
        peak = max(peak, peaks[name]) / MIB
        work = f"memory of the {name} with {most:,} blobs, the peak"
        rows.append(Row(work, "-", f"{number(peak)} MiB", value=peak, target=("<=", 200), unit=" MiB"))
    return rows


def fill(stage, count):
    store = stage.started(Ours(stage.folder / f"blobs.{count}"))
    store.bench("put", size=SIZE, concurrency=64, count=count, seed=SEED, keep=True, warm_up="0s")
    return store


def listing(stage, count, store):
    def measured():
        return store.bench("list", concurrency=1, existing=True, seed=SEED)["list"]

    found = in_turn(stage.disk, stage.form.times, {"list": measured})["list"]
    entries = statistics.median(each["entries_per_second"] for each in found)
    work = f"ListBlobs of {count:,}, one client"
    rows = [Row(work, "-", rate(entries, " entries/s"), value=entries, target=(">=", 200_000), unit=" entries/s")]
    pages = [each["page_ms"] for each in found if "page_ms" in each]
    if pages:
        first, last = (statistics.median(page[end] for page in pages) for end in ("first_tenth_p50", "last_tenth_p50"))
        work = f"a page of 1,000 at the end of {count:,} against one at the start"
        rows.append(Row(work, f"{number(first)} ms", f"{number(last)} ms", ratio=last / first, target=("<=", 1.2)))
    return rows


def costs(stage, stores):
    """What an operation costs over each store, against the smallest."""
    count = stage.form.scale_count
    turns = iter(range(1_000_000))

    def measured(store):
        seed, common = next(turns), {"size": 4096, "concurrency": 16, "count": count}
        rates = [
            store.bench("put", keep=True, seed=seed, **common)["put"],
            store.bench("get", existing=True, seed=SEED, **common)["get"],
            store.bench("delete", seed=SEED + 1 + seed, **common)["delete"],
        ]
        return [each["operations_per_second"] for each in rates]

    sides = {blobs: lambda store=store: measured(store) for blobs, store in stores.items()}
    found = in_turn(stage.disk, stage.form.times, sides)
    least, *more = sides
    rows = []
    for blobs in more:
        for name, (operation, place) in WORK.items():
            few, many = (statistics.median(each[place] for each in found[side]) for side in (least, blobs))
            work = f"cost of a {name} over {blobs:,} blobs against {least:,} (`bench {operation}`, 16 at once)"
            rows.append(Row(work, rate(few), rate(many), ratio=few / many, target=("<=", 1.3)))
    return rows


def starts(stage, count, store):
    def again():
        store.stop()
        return store.start()

    seconds = statistics.median(in_turn(stage.disk, stage.form.times, {"start": again})["start"])
    work = f"start of both services with {count:,} blobs, warm cache"
    return [Row(work, "-", f"{number(seconds)} s", value=seconds, target=("<=", 2), unit=" s")]


def memory(store):
    return {"metadata service": store.metadata.peak_memory(), "chunk service": store.chunk.peak_memory()}
