"""Many small files through the command line."""

from .. import rclone
from ..table import compared, rate
from ..turns import medians


def measure(stage):
    form, folder = stage.form, stage.small_files
    files = sorted(folder.iterdir())
    turns = iter(range(1_000_000))

    def copy(remote, environment=None):
        to = f"{remote}/files.{next(turns)}"
        seconds = rclone.copy(folder, to, environment).seconds
        if (copied := rclone.count(to, environment)) != form.files:
            raise RuntimeError(f"rclone copied {copied} of {form.files} files")
        return seconds

    sides = {
        "SeaweedFS": lambda: copy(f"{stage.seaweed.remote()}peers"),
        "ours": lambda: stage.ours.put(*files).seconds,
    }
    notes = {"SeaweedFS": ("rclone", "no fsync"), "Garage": ("rclone", "garage")}
    if form.garage:
        garage, environment = f"{stage.garage.remote()}peers", stage.garage.environment()
        sides["Garage"] = lambda: copy(garage, environment)
    found = medians(stage.disk, form.times, sides)
    ours = form.files / found.pop("ours")
    work = f"{form.files:,} files of 4 KiB, `put -f` of all: `rclone copy` to"
    return [
        compared(f"{work} {name}", form.files / seconds, ours, rate, target=(">=", 3.0), notes=notes[name])
        for name, seconds in found.items()
    ]
