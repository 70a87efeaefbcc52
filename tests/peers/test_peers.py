"""Whatever reads what other programs print, and the table."""

import pytest

from peers import hardware, seaweed
from peers.table import Row, compared, markdown, number, rate

WEED = """
------------ Writing Benchmark ----------
Completed requests:      500
Failed requests:        {failed}
Requests per second:    274.83 [#/sec]
------------ Randomly Reading Benchmark ----------
Completed requests:      {read}
Failed requests:        0
Requests per second:    2909.07 [#/sec]
"""


def test_both_rates_of_weed_benchmark_are_read():
    assert seaweed.rates(WEED.format(failed=0, read=500), 500) == [274.83, 2909.07]


@pytest.mark.parametrize("told", ["", WEED.format(failed=1, read=500), WEED.format(failed=0, read=499)])
def test_a_benchmark_that_failed_is_not_measured(told):
    with pytest.raises(RuntimeError):
        seaweed.rates(told, 500)


def test_openssl_s_speed_is_that_of_the_last_line():
    told = "version: 3.0\ntype          65536 bytes\nsha256         1400012.80k\n"
    assert hardware.speed(told) == 1400012.80e3


def test_fio_s_files_are_its_writes():
    told = 'fio: note\n{"jobs": [{"write": {"total_ios": 1600, "runtime": 800}}]}'
    assert hardware.files_per_second(told) == 2000


def test_a_row_says_whether_its_target_is_met():
    def judged(ratio, target, stretch=None):
        return Row("w", "t", "o", ratio=ratio, target=target, stretch=stretch).judged()

    assert judged(0.9, (">=", 0.9)) == "yes" and judged(0.89, (">=", 0.9)) == "**no**"
    assert judged(1.3, ("<=", 1.3)) == "yes" and judged(1.31, ("<=", 1.3)) == "**no**"
    assert judged(2.1, (">=", 1.2), 2.0) == "yes, and the stretch" and judged(1.3, (">=", 1.2), 2.0) == "yes"
    assert judged(None, (">=", 1.2)) == "not measured"
    assert judged(1.0, None) == "-"


def test_the_table_has_every_row_and_each_footnote_once():
    rows = [
        compared("put", 100.0, 50.0, rate, target=(">=", 0.9), notes=("a", "b")),
        compared("get", 1000.0, 3000.0, rate, notes=("b",)),
        Row("memory", "-", "99 MiB", value=99, target=("<=", 100), unit=" MiB"),
    ]
    text = markdown(rows, {"a": "no fsync", "b": "no sums", "c": "not needed"}, ["head"])
    assert text.splitlines() == [
        "head",
        "",
        "| work | theirs | ours | ratio | target | met |",
        "|---|---|---|---|---|---|",
        "| put<sup>1</sup><sup>2</sup> | 100/s | 50/s | 0.50 | at least 0.9x | **no** |",
        "| get<sup>2</sup> | 1,000/s | 3,000/s | 3.00 | - | - |",
        "| memory | - | 99 MiB | - | at most 100 MiB | yes |",
        "",
        "1. no fsync",
        "2. no sums",
    ]


def test_numbers_have_three_digits():
    assert [number(value) for value in (0.0123, 1.005, 12.34, 123.4, 12345)] == ["0.0123", "1", "12.3", "123", "12,345"]
