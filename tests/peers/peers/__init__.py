"""Measures this project against what its users would take instead, and against what the hardware allows.

Each side does the same work in turn (A B A B ...) on the same disk of the same machine, in fresh folders, over
loopback; the table has the medians. Our puts are durable and our gets verified in every row; what a peer leaves out of
that is said in a footnote of its row. Rows that are lost are printed like rows that are won, and nothing is judged: a
run fails only when something does not work. A peer that cannot be installed is an error.

    machine.py    the disk's calm, free space, what machine it is
    processes.py  programs: started, awaited, measured, ended
    turns.py      A B A B and medians
    table.py      rows, targets, footnotes
    ours.py, seaweed.py, garage.py, rclone.py, hardware.py    one side each
    rows/         what is measured, by groups

Written in Python because it only starts other programs, reads what they print and divides: everything that has to be
fast is in them. The peers come as Python packages, so there is an environment for it anyway.

Deleting disturbs: where a file system is mounted with `discard`, deleting many files makes every sync slower for a
while after. So each run's folders are removed at its very end, and before each measurement the disk has to be as quick
as it was at the start (`machine.Disk.calm`).
"""
