"""What is wrong with a data set, on its HTML page: every kind of problem, with pictures of its first places."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from utils.data_tools.check import DROPPED, KINDS, MENDED, NOTHING, STOPS, DataCheck, Problem
from utils.data_tools.thumbnails import Album, Target, find_targets
from utils.progress import progress_bar
from utils.text import counted
from utils.visualize.html import text

_MOST_SHOWN = 50  # places with pictures, of each kind
_MOST_LISTED, _MOST_CHARACTERS = 300, 40_000  # places in the list below them, and what they may take of the page

EFFECTS: Mapping[str, tuple[str, str, str]] = {  # sign, name, what it means
    STOPS: ("✕", "stops", "a training refuses to start, or ends there"),
    DROPPED: ("&minus;", "dropped", "a training goes on without it"),
    MENDED: ("✓", "mended", "a training repairs it and goes on"),
    NOTHING: ("○", "noted", "a training takes it as it is; whether that is right, you know"),
}


def problems_section(checked: DataCheck, album: Album, limit: int) -> str:
    """All problems by kind, most serious first, the first `limit` places of each with pictures."""
    if not checked.problems:
        return '<p class="fine">Nothing is wrong with it.</p>'
    of_kind: dict[str, list[Problem]] = {}
    for problem in checked.problems:
        of_kind.setdefault(problem.kind, []).append(problem)
    kinds = sorted(of_kind, key=list(KINDS).index)
    shown = {kind: of_kind[kind][: min(limit, _MOST_SHOWN)] for kind in kinds}
    targets = find_targets(checked, (problem for problems in shown.values() for problem in problems))
    parts = []
    for kind in progress_bar(kinds, "Drawing problems"):
        cards = "".join(_card(checked, album, problem, targets[problem]) for problem in shown[kind])
        rest = _list(of_kind[kind][len(shown[kind]) :])
        is_open = " open" if KINDS[kind] == STOPS or kind == kinds[0] else ""
        parts.append(
            f'<details class="kind {KINDS[kind]}"{is_open}>{_heading(kind, of_kind[kind])}\n'
            f'<div class="cards">{cards}</div>{rest}</details>\n'
        )
    return "".join(parts)


def _heading(kind: str, problems: Sequence[Problem]) -> str:
    sign, name, _ = EFFECTS[KINDS[kind]]
    splits = Counter(problem.split for problem in problems)
    chips = "".join(f'<span class="chip {split}">{split} {count:,}</span>' for split, count in splits.items())
    return (
        f'<summary><span class="effect {KINDS[kind]}"><span aria-hidden="true">{sign}</span> {name}</span>'
        f'<b>{len(problems):,}</b> <span class="name">{text(kind)}</span>{chips}</summary>'
    )


def _card(checked: DataCheck, album: Album, problem: Problem, targets: Sequence[Target]) -> str:
    drawn = [album.thumbnail(target, checked.readings[target.split]) for target in targets]
    pictures = "".join(filter(None, drawn))
    place = Path(problem.place)
    return (
        f'<article class="card">{f"<div class=pictures>{pictures}</div>" if pictures else ""}'
        f'<p><span class="chip {problem.split}">{problem.split}</span> <b class="file">{text(place.name, 120)}</b></p>'
        f"{f'<p>{text(problem.what, 300)}</p>' if problem.what else ''}"
        f'<p class="path">{text(problem.place)}</p></article>\n'
    )


def _list(problems: Sequence[Problem]) -> str:
    """The places that no picture is shown of, as many as the page has room for."""
    items, room = [], _MOST_CHARACTERS
    for problem in problems[:_MOST_LISTED]:
        what = f": {text(problem.what)}" if problem.what else ""
        item = f'<li><span class="chip {problem.split}">{problem.split}</span> {text(problem.place)}{what}</li>\n'
        room -= len(item)
        if room < 0:
            break
        items.append(item)
    if not problems:
        return ""
    left = len(problems) - len(items)
    more = f"<p>and {left:,} more; all of them are in the file that --json writes</p>" if left else ""
    return (
        f'<details class="rest"><summary>{counted(len(problems), "more place")}</summary>'
        f"<ul>{''.join(items)}</ul>{more}</details>"
    )
