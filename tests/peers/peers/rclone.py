"""rclone: the client through which the S3 doors are measured."""

import re

from . import processes

FLAGS = ("--config=/dev/null", "--retries=1", "--transfers=16", "--checkers=16", "--no-traverse", "--quiet")


def version():
    return re.search(r"rclone v(\S+)", processes.run("rclone", "version").stdout).expand(r"rclone \1")


def copy(source, remote, environment=None):
    """Copies a folder. Makes the bucket where it is not there."""
    return processes.run("rclone", "copy", *FLAGS, source, remote, environment=environment)


def copy_file(source, remote, environment=None):
    """Copies one file, whole."""
    return processes.run("rclone", "copyto", *FLAGS, source, remote, environment=environment)


def count(remote, environment=None):
    """How many objects there are."""
    return len(processes.run("rclone", "lsf", "--config=/dev/null", remote, environment=environment).stdout.split())
