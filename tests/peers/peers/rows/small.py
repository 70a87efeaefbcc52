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
        "fio": lambda: hardware.synced_files(stage.folder / f"fio.{next(turns)}", form.small_count, CONCURRENCY),
    }
    batches = has_batches()
    if batches:
        sides["batches"] = lambda: ours(stage, next(turns), batch=BATCH)
    found = in_turn(stage.disk, form.times, sides)
    put, get = (tuple(median(found[side], place) for side in ("seaweed", "ours")) for place in (0, 1))
    seaweed_notes = ("benchmark's zeros", "no verification")
    rows = [
        compared("PUT 4 KiB, durable, 16 at once: SeaweedFS `-fsync`", *put, rate, **(wanted(1.2, 2.0) | noted("benchmark's zeros"))),
        compared("GET 4 KiB, 16 at once, each once: SeaweedFS", *get, rate, **(wanted(0.7, 1.0) | noted(*seaweed_notes, "at random"))),
        compared("PUT 4 KiB, durable: NativeLink", NATIVELINK["PUT"], put[1], rate, **(wanted(2.0) | noted("nativelink", "no fsync"))),
        compared("GET 4 KiB: NativeLink", NATIVELINK["GET"], get[1], rate, **(wanted(8.0) | noted("nativelink"))),
        compared("PUT 4 KiB, 16 at once: `fio`, a file each, fsynced", statistics.median(found["fio"]), put[1], rate, **noted("fio")),
    ]
    for place, (name, one_by_one) in enumerate((("PUT", put), ("GET", get))):
        work = f"{name} 4 KiB in batches of {BATCH}, 16 at once: SeaweedFS one by one"
        if batches:
            rows.append(compared(work, one_by_one[0], median(found["batches"], place), rate, **wanted(2.0)))
        else:
            rows.append(Row(work, rate(one_by_one[0]), "no batch calls yet", **wanted(2.0)))
    return rows


def wanted(target, stretch=None):
    return {"target": (">=", target), "stretch": stretch}


def noted(*notes):
    return {"notes": notes}


def median(found, place):
    return statistics.median(each[place] for each in found)


def ours(stage, seed, **flags):
    """Puts and gets a second. What was put stays: deletes would disturb the next turn."""
    phases = stage.ours.bench(
        "both", size=SIZE, concurrency=CONCURRENCY, count=stage.form.small_count, seed=seed, keep=True, **flags
    )
    return [phases[phase]["operations_per_second"] for phase in ("put", "get")]
