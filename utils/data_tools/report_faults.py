"""Section of the data set report that lists the problems, with pictures of the first ones of each kind."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from utils.data_tools.check import DROPPED, EFFECT_NAMES, KEPT, KINDS, REPAIRED, STOPS, DataCheck, Problem
from utils.data_tools.thumbnails import Album, Target, find_targets
from utils.progress import progress_bar
from utils.text import counted
from utils.visualize.html import html_text

_MAX_CARDS = 50  # problems with pictures, of each kind
_MAX_LISTED, _MAX_CHARACTERS = 300, 40_000  # problems in the list below them, and its length in the page

EFFECTS: Mapping[str, tuple[str, str]] = {  # sign and explanation
    STOPS: ("✕", "training refuses to start, or ends with an error"),
    DROPPED: ("&minus;", "training leaves it out"),
    REPAIRED: ("✓", "training repairs it"),
    KEPT: ("○", "training uses it as it is; check that it is intended"),
}


def problems_section(checked: DataCheck, album: Album, limit: int) -> str:
    """HTML of all problems by kind, most serious first; the first `limit` of each kind have pictures."""
    if not checked.problems:
        return '<p class="fine">No problems.</p>'
    by_kind: dict[str, list[Problem]] = {}
    for problem in checked.problems:
        by_kind.setdefault(problem.kind, []).append(problem)
    kinds = sorted(by_kind, key=list(KINDS).index)
    cards = {kind: by_kind[kind][: min(limit, _MAX_CARDS)] for kind in kinds}
    targets = find_targets(checked, (problem for problems in cards.values() for problem in problems))
    parts = []
    for kind in progress_bar(kinds, "Drawing problems"):
        articles = "".join(_card(checked, album, problem, targets[problem]) for problem in cards[kind])
        rest = _list(by_kind[kind][len(cards[kind]) :])
        is_open = " open" if KINDS[kind] == STOPS or kind == kinds[0] else ""
        parts.append(
            f'<details class="kind {KINDS[kind]}"{is_open}>{_heading(kind, by_kind[kind])}\n'
            f'<div class="cards">{articles}</div>{rest}</details>\n'
        )
    return "".join(parts)


def _heading(kind: str, problems: Sequence[Problem]) -> str:
    effect = KINDS[kind]
    splits = Counter(problem.split for problem in problems)
    chips = "".join(f'<span class="chip {split}">{split} {count:,}</span>' for split, count in splits.items())
    return (
        f'<summary><span class="effect {effect}"><span aria-hidden="true">{EFFECTS[effect][0]}</span> '
        f"{EFFECT_NAMES[effect]}</span>"
        f'<b>{len(problems):,}</b> <span class="name">{html_text(kind)}</span>{chips}</summary>'
    )


def _card(checked: DataCheck, album: Album, problem: Problem, targets: Sequence[Target]) -> str:
    drawn = [album.thumbnail(target, checked.readings[target.split]) for target in targets]
    pictures = "".join(filter(None, drawn))
    path = Path(problem.path)
    return (
        f'<article class="card">{f"<div class=pictures>{pictures}</div>" if pictures else ""}'
        f'<p><span class="chip {problem.split}">{problem.split}</span> '
        f'<b class="file">{html_text(path.name, 120)}</b></p>'
        f"{f'<p>{html_text(problem.detail, 300)}</p>' if problem.detail else ''}"
        f'<p class="path">{html_text(problem.path)}</p></article>\n'
    )


def _list(problems: Sequence[Problem]) -> str:
    """HTML list of the problems without pictures, within the limits of length."""
    items, room = [], _MAX_CHARACTERS
    for problem in problems[:_MAX_LISTED]:
        detail = f": {html_text(problem.detail)}" if problem.detail else ""
        item = f'<li><span class="chip {problem.split}">{problem.split}</span> {html_text(problem.path)}{detail}</li>\n'
        room -= len(item)
        if room < 0:
            break
        items.append(item)
    if not problems:
        return ""
    left = len(problems) - len(items)
    more = f"<p>and {left:,} more; --json writes all of them</p>" if left else ""
    return (
        f'<details class="rest"><summary>{counted(len(problems), "more file")}</summary>'
        f"<ul>{''.join(items)}</ul>{more}</details>"
    )
