"""Coverage checks: a stage fails if too small a share of its input is usable."""

from collections.abc import Mapping

from trimodal.core.records import DataError


def check_coverage(
    stage: str,
    items: str,
    usable: int,
    left_out: Mapping[str, int],
    *,
    required: float,
    param: str,
    examples: Mapping[str, str] | None = None,
) -> None:
    """Raises DataError if the usable share of a stage's input ``items`` is below ``required`` (0 to
    1, the value of parameter ``param``), or if nothing is usable at all.

    ``left_out`` counts the unusable ones by reason; the message lists them, most frequent first,
    each with its example if there is one.
    """
    total = usable + sum(left_out.values())
    if usable and usable >= required * total:
        return
    share = 100 * usable / total if total else 0.0
    raise DataError(
        f"{stage}: {share:.1f} % of the {total} {items} are usable; {100 * required:g} % are "
        f"required ({param}) and at least one\n{reason_table(left_out, examples or {})}"
    )


def reason_table(left_out: Mapping[str, int], examples: Mapping[str, str]) -> str:
    """One line for each reason: its name, count and example."""
    counts = ((reason, count) for reason, count in left_out.items() if count)
    rows = sorted(counts, key=_most_frequent_first)
    width = max((len(reason) for reason, _ in rows), default=0)
    return "\n".join(
        f"  {reason:<{width}} {count:>8}  {_example_text(examples.get(reason, ''))}".rstrip()
        for reason, count in rows
    )


def _most_frequent_first(row: tuple[str, int]) -> tuple[int, str]:
    return -row[1], row[0]


def _example_text(example: str) -> str:
    return f"e.g. {example[:120]}" if example else ""
