"""The table: rows, targets, footnotes."""

import dataclasses


@dataclasses.dataclass
class Row:
    """Work, and what each side made of it.

    `ratio` is ours by theirs, so that more is better, unless `target` says "at most". `target` is a comparison and a
    number, for example (">=", 0.9); `stretch` one that would be better still. Where there is nothing to compare with,
    `ratio` is None and `value` is what the target is about.
    """

    work: str
    theirs: str
    ours: str
    ratio: float | None = None
    target: tuple[str, float] | None = None
    stretch: float | None = None
    value: float | None = None
    unit: str = ""
    notes: tuple[str, ...] = ()

    def judged(self):
        measured = self.ratio if self.value is None else self.value
        if self.target is None:
            return "-"
        if measured is None:
            return "not measured"
        if not meets(measured, self.target[0], self.target[1]):
            return "**no**"
        stretched = self.stretch is not None and meets(measured, self.target[0], self.stretch)
        return "yes, and the stretch" if stretched else "yes"

    def wanted(self):
        if self.target is None:
            return "-"
        sign, bound = self.target
        text = f"{'at least' if sign == '>=' else 'at most'} {number(bound)}{self.unit or 'x'}"
        return text if self.stretch is None else f"{text} (stretch {number(self.stretch)})"


def meets(measured, sign, bound):
    return measured >= bound if sign == ">=" else measured <= bound


def number(value):
    """For people: three digits, or all before the point."""
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def rate(per_second, unit="/s"):
    return f"{number(per_second)}{unit}"


def mb_s(size_bytes, seconds):
    return f"{number(size_bytes / seconds / 1e6)} MB/s"


def compared(work, theirs, ours, show, **more):
    """A row of two rates, of which more is better; `show` prints one."""
    return Row(work, show(theirs), show(ours), ratio=ours / theirs, **more)


def markdown(rows, footnotes, head):
    """The whole table. Footnotes are numbered in the order in which rows need them."""
    numbers = {}
    lines = [*head, "", "| work | theirs | ours | ratio | target | met |", "|---|---|---|---|---|---|"]
    for row in rows:
        marks = "".join(f"<sup>{numbers.setdefault(note, len(numbers) + 1)}</sup>" for note in row.notes)
        ratio = "-" if row.ratio is None else f"{row.ratio:.2f}"
        lines.append(f"| {row.work}{marks} | {row.theirs} | {row.ours} | {ratio} | {row.wanted()} | {row.judged()} |")
    lines += [""] + [f"{mark}. {footnotes[note]}" for note, mark in numbers.items()]
    return "\n".join(lines)
