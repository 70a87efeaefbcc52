"""The same work on each side in turn, and what came of it."""

import statistics


def in_turn(disk, times, sides):
    """Runs each of `sides` (name to function) in turn, `times` times; returns the list of results by name.

    Before each measurement the disk is calm, so that no side pays for what another has left to do.
    """
    results = {name: [] for name in sides}
    for _ in range(times):
        for name, measure in sides.items():
            disk.calm()
            results[name].append(measure())
    return results


def medians(disk, times, sides):
    """The median of each side."""
    return {name: statistics.median(found) for name, found in in_turn(disk, times, sides).items()}
