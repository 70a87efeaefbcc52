"""Objects of 4 KiB, one by one and in batches."""

import statistics

from .. import hardware
from ..ours import has_batches
from ..stage import KIB
from ..table import Row, compared, rate
from ..turns import in_turn

CONCURRENCY = 16
SIZE = 4 * KIB
BATCH = 100
# NativeLink 1.6.6, filesystem store with hash verification, ByteStream: measured once on a machine of this kind.
NATIVELINK = {"PUT": 2_317, "GET": 1_013}


def measure(stage):
    form = stage.form
    turns = iter(range(1_000_000))
    sides = {
        "seaweed": lambda: stage.seaweed.benchmark(form.small_count, CONCURRENCY, SIZE),
        "ours": lambda: ours(stage, next(turns)),
        "apart": lambda: ours(stage, next(turns), clients=CONCURRENCY),
        "fio": lambda: hardware.synced_files(stage.folder / f"fio.{next(turns)}", form.small_count, CONCURRENCY),
    }
    batches = has_batches()
    if batches:
        sides["batches"] = lambda: ours(stage, next(turns), batch=BATCH)
    found = in_turn(stage.disk, form.times, sides)
    put, get = (tuple(median(found[side], place) for side in ("seaweed", "ours")) for place in (0, 1))
    apart = [median(found["apart"], place) for place in (0, 1)]
    fio = statistics.median(found["fio"])

    def row(work, theirs, ours, target=None, stretch=None, notes=()):
        judged = {} if target is None else {"target": (">=", target), "stretch": stretch}
        return compared(work, theirs, ours, rate, notes=notes, **judged)

    zeros, unverified = "benchmark's zeros", ("benchmark's zeros", "no verification", "at random")
    rows = [
        row("PUT 4 KiB, durable, 16 at once: SeaweedFS `-fsync`", *put, 1.2, 2.0, (zeros, "together")),
        row("the same from 16 clients that share nothing", put[0], apart[0], 1.2, 2.0, (zeros,)),
        row("GET 4 KiB, 16 at once, each once: SeaweedFS", *get, 0.7, 1.0, (*unverified, "together")),
        row("the same by 16 clients that share nothing", get[0], apart[1], 0.7, 1.0, unverified),
        row("PUT 4 KiB, durable: NativeLink", NATIVELINK["PUT"], put[1], 2.0, notes=("nativelink", "no fsync")),
        row("GET 4 KiB: NativeLink", NATIVELINK["GET"], get[1], 8.0, notes=("nativelink",)),
        row("PUT 4 KiB, 16 at once: `fio`, a file each, fsynced", fio, put[1], notes=("fio",)),
    ]
    for place, (name, one_by_one) in enumerate((("PUT", put), ("GET", get))):
        work = f"{name} 4 KiB in batches of {BATCH}, 16 at once: SeaweedFS one by one"
        if batches:
            rows.append(row(work, one_by_one[0], median(found["batches"], place), 2.0))
        else:
            rows.append(Row(work, rate(one_by_one[0]), "no batch calls yet", target=(">=", 2.0)))
    return rows


def median(found, place):
    return statistics.median(each[place] for each in found)


def ours(stage, seed, **flags):
    """Objects put and got a second. What was put stays: deletes would disturb the next turn."""
    phases = stage.ours.bench(
        "both", size=SIZE, concurrency=CONCURRENCY, count=stage.form.small_count, seed=seed, keep=True, **flags
    )
    return [phases[phase]["bytes_per_second"] / SIZE for phase in ("put", "get")]
