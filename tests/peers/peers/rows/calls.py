"""The hardware's own figures that other rows are not compared with, and an empty call."""

import statistics

from .. import hardware
from ..table import Row, mb_s, rate
from ..turns import in_turn


def measure(stage):
    form = stage.form

    def ping(at_once):
        return stage.ours.bench("ping", concurrency=at_once, count=form.pings)["ping"]["operations_per_second"]

    sides = {
        "sha": hardware.sha256_speed,
        "alone": lambda: ping(1),
        "many": lambda: ping(64),
    }
    found = in_turn(stage.disk, form.times, sides)
    sha, alone, many = (statistics.median(found[side]) for side in sides)
    return [
        Row("`openssl speed sha256`, one core, 64 KiB", mb_s(sha, 1), "-"),
        Row("an empty unary call, one in flight", "-", rate(alone)),
        Row("an empty unary call, 64 in flight on one connection", "-", rate(many)),
    ]
