"""`python -m peers short|long`: runs all groups of rows and prints the table."""

import argparse
import dataclasses
import pathlib
import resource
import sys
import time

from . import garage, machine, ours, rclone, seaweed
from .footnotes import FOOTNOTES
from .rows import calls, files, large, memory, scale, small
from .stage import LONG, SHORT, Stage
from .table import markdown

GROUPS = {"calls": calls, "large": large, "small": small, "files": files, "scale": scale, "memory": memory}


def main():
    flags = parsed()
    form = SHORT if flags.form == "short" else LONG
    if flags.times:
        form = dataclasses.replace(form, times=flags.times)
    # A thousand clients have some thousand connections; the programs that are started take this over.
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    stage = Stage(form, flags.folder or flags.work / "runs", not flags.only)
    began = time.monotonic()
    try:
        rows = []
        for name in flags.only or GROUPS:
            found = GROUPS[name].measure(stage)
            # For whoever waits; the table comes at the end.
            print(f"measured: {name}, {time.monotonic() - began:.0f} s after the start", file=sys.stderr, flush=True)
            rows += found
        print(markdown(rows, FOOTNOTES, head(form, flags.profile)))
    finally:
        stage.end()


def parsed():
    parser = argparse.ArgumentParser(prog="tests/peers/run", description="Measures this project against its peers.")
    parser.add_argument("form", choices=["short", "long"])
    parser.add_argument("--work", type=pathlib.Path, required=True, help=argparse.SUPPRESS)
    parser.add_argument("--profile", required=True, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=pathlib.Path, help="on which disk; by default in the target folder")
    parser.add_argument("--only", action="append", choices=list(GROUPS), help="a group of rows; again for more")
    parser.add_argument("--times", type=int, help="measurements of each side")
    return parser.parse_args()


def head(form, profile):
    versions = [ours.version(), seaweed.version(), rclone.version(), *([garage.version()] if form.garage else [])]
    lines = [
        f"`tests/peers/run {form.name}`: {machine.description()}. {'; '.join(versions)}. Services, clients and peers "
        f"on the same machine, over loopback, in turn; medians of {form.times}. Ours built with cargo's profile "
        f"`{profile}`{' and jemalloc, as `deploy/README.md` says' if profile == 'dist' else ''}, durable and verified "
        "in every row.",
    ]
    if form.name == "short":
        lines.append("The short form shows that everything works; its sizes are too small for its figures to say much.")
    return lines


main()
