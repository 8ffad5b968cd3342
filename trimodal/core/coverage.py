"""Coverage gates: a stage fails where too little of what it was asked for could be used."""

from collections.abc import Mapping

from trimodal.core.records import DataError


def check_coverage(
    stage: str,
    items: str,
    good: int,
    lost: Mapping[str, int],
    *,
    needed: float,
    param: str,
    examples: Mapping[str, str] | None = None,
) -> None:
    """Raises DataError if the usable share of the ``items`` that a stage was asked for is below
    ``needed`` (0 to 1, the parameter ``param``), or if nothing is usable at all.

    ``lost`` counts the others by reason; the message lists them, most frequent first, each with its
    example if there is one.
    """
    total = good + sum(lost.values())
    if good and good >= needed * total:
        return
    share = 100 * good / total if total else 0.0
    raise DataError(
        f"{stage}: {share:.1f} % of the {total} {items} are usable; needed are {100 * needed:g} % "
        f"({param}) and at least one\n{table_of_reasons(lost, examples or {})}"
    )


def table_of_reasons(lost: Mapping[str, int], examples: Mapping[str, str]) -> str:
    """A line a reason: its name, its count, its example."""
    listed = sorted(((reason, count) for reason, count in lost.items() if count), key=_most_first)
    width = max((len(reason) for reason, _ in listed), default=0)
    return "\n".join(
        f"  {reason:<{width}} {count:>8}  {_shown(examples.get(reason, ''))}".rstrip()
        for reason, count in listed
    )


def _most_first(row: tuple[str, int]) -> tuple[int, str]:
    return -row[1], row[0]


def _shown(example: str) -> str:
    return f"e.g. {example[:120]}" if example else ""
