"""One large file: put to disk and to memory, got from the page cache, and what that costs the client."""

import shutil
import statistics

from .. import hardware, rclone
from ..ours import Ours
from ..stage import size
from ..table import Row, compared, mb_s, number
from ..turns import in_turn

BUCKET = "peers"


def measure(stage):
    return [*put(stage), *put_to_memory(stage), *get(stage)]


def median(found, of=lambda each: each.seconds):
    return statistics.median(of(each) for each in found)


def touched(stage, measure):
    """The same after memory was touched: as much as it will take, and some more."""

    def measured():
        hardware.touch_memory(stage.memory, stage.form.large_bytes * 5 // 4)
        return measure()

    return measured


def put(stage):
    form, file, name = stage.form, stage.large_file, size(stage.form.large_bytes)
    turns = iter(range(1_000_000))

    def dd():
        return hardware.dd(file, stage.folder / f"dd.{next(turns)}")

    sides = {
        "dd": dd,
        "ours": lambda: stage.ours.put(file),
        "dd, touched": touched(stage, dd),
        "ours, touched": touched(stage, lambda: stage.ours.put(file)),
        "openssl": lambda: hardware.sha256_cpu_s(file),
        "seaweed": lambda: stage.seaweed.put(file, f"large.{next(turns)}"),
    }
    if form.garage:
        environment = stage.garage.environment()
        target = f"{stage.garage.remote()}{BUCKET}/large"
        sides["garage"] = lambda: rclone.copy_file(file, f"{target}.{next(turns)}", environment)
    found = in_turn(stage.disk, form.times, sides)
    ours = form.large_bytes / median(found["ours"])

    work = f"PUT {name}, one client, to disk"

    def row(peer, seconds, **more):
        return compared(f"{work}: {peer}", form.large_bytes / seconds, ours, speed, **more)

    rows = [
        row("`dd conv=fsync`", statistics.median(found["dd"]), target=(">=", 0.9)),
        compared(
            f"{work}, memory touched before: `dd conv=fsync`",
            form.large_bytes / statistics.median(found["dd, touched"]),
            form.large_bytes / median(found["ours, touched"]),
            speed,
            notes=("touched",),
        ),
        row("SeaweedFS filer, curl", median(found["seaweed"]), notes=("no fsync", "no verification")),
    ]
    if form.garage:
        rows.append(row("Garage, rclone", median(found["garage"]), notes=("garage", "rclone")))
    cpu = (statistics.median(found["openssl"]), median(found["ours"], lambda each: each.cpu_seconds))
    return [*rows, cpu_row(f"client's processor time of a PUT of {name}: `openssl dgst -sha256`", *cpu)]


def cpu_row(work, theirs, ours):
    return Row(work, f"{number(theirs)} s", f"{number(ours)} s", ratio=ours / theirs, target=("<=", 2.5))


def speed(bytes_per_second):
    return mb_s(bytes_per_second, 1)


def put_to_memory(stage):
    """On services of their own, which go at once: memory is scarce, and deleting there disturbs nobody."""
    form, folder = stage.form, stage.memory / "ours"
    ours = Ours(folder)
    try:
        sides = {"sha": hardware.sha256_speed, "ours": touched(stage, lambda: ours.put(stage.large_file))}
        found = in_turn(stage.disk, form.times, sides)
    finally:
        ours.stop()
        shutil.rmtree(folder)
    work = f"PUT {size(form.large_bytes)}, one client, storage in memory: one core's SHA-256"
    bytes_per_second = form.large_bytes / median(found["ours"])
    sha = statistics.median(found["sha"])
    return [compared(work, sha, bytes_per_second, speed, target=(">=", 0.35), stretch=0.45, notes=("touched",))]


def get(stage):
    form, file, name = stage.form, stage.large_file, size(stage.form.large_bytes)
    (blob_id,) = stage.ours.put(file).ids
    stage.seaweed.put(file, "large")
    sides = {
        "sha": hardware.sha256_speed,
        "ours": lambda: stage.ours.get(blob_id),
        "openssl": lambda: hardware.sha256_cpu_s(file),
        "seaweed": lambda: stage.seaweed.get("large"),
    }
    if form.garage:
        environment = stage.garage.environment()
        remote = f"{stage.garage.remote()}{BUCKET}/got"
        rclone.copy_file(file, remote, environment)
        sides["garage"] = lambda: rclone.copy_file(remote, stage.memory / "got", environment)
    # Once each before it counts, so that everybody reads from the page cache.
    for warm in sides.values():
        warm()
    found = in_turn(stage.disk, form.times, sides)
    ours = form.large_bytes / median(found["ours"])
    work = f"GET {name}, one client, from the page cache, to /dev/null"
    seaweed = form.large_bytes / median(found["seaweed"])
    rows = [
        compared(f"{work}: one core's SHA-256", statistics.median(found["sha"]), ours, speed, target=(">=", 0.6)),
        compared(
            f"{work}: SeaweedFS filer, curl", seaweed, ours, speed, target=(">=", 0.9), notes=("no verification",)
        ),
    ]
    if form.garage:
        garage = form.large_bytes / median(found["garage"])
        notes = ("garage", "rclone", "to memory")
        rows.append(compared(f"GET {name}: Garage, rclone", garage, ours, speed, notes=notes))
    cpu = (statistics.median(found["openssl"]), median(found["ours"], lambda each: each.cpu_seconds))
    return [*rows, cpu_row(f"client's processor time of a GET of {name}: `openssl dgst -sha256`", *cpu)]
