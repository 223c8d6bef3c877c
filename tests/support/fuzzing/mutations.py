"""Mutate valid files; all random choices come from the generator that is passed in.

Bytes are damaged blindly; XML, JSON and rows of words also as the trees they are, which gets the damage past a parser.
"""

import json
from collections.abc import Sequence
from random import Random
from typing import Any
from xml.etree import ElementTree

WORDS = (
    "", " ", "0", "-0", "-1", "1e400", "-1e400", "1e300", "1e-400", "nan", "inf", "-Infinity", "0x10", "1_0",
    "1,5", "1.5.2", "--1", "+1", "½", "١٢", "\uff11\uff12", "\ufeff1", "1\u202e2", "\u202eabc", "\u2028", "\x85",
    "\x9b2J", "\xa0", "None", "true", "cat", "dog", "CAT", "猫", "👩‍🚒", "a\tb", "a\nb", "'", '"', "\\", "&amp;",
    "<b/>", "]]>", "{}", ".", "/", "../../etc/passwd", "C:\\x\\a.jpg", "9" * 400, "9" * 5000, "x" * 3000,
)  # fmt: skip
_UNPRINTABLE = ("\0", "\x1b[2J", "\ud800", "\udcff", "\ufffe", "\x0c")  # which XML has no way to say
_MARKUP = (
    b"<!ENTITY a 'b'>|<!DOCTYPE a [<!ENTITY b 'c'>]>|&a;|&#0;|&#xD800;|&#99999999999;|<![CDATA[|<!--|-->|<?x ?>|<a>",
    b"</object>|<object>|<a b='1' b='2'>|<?xml version='1.1'?>|<?xml encoding='utf-16'?>|encoding='rot13'",
    b'\xff\xfe|\xfe\xff|\xef\xbb\xbf|\xc0\x80|\xff|[|]|{|}|,|:|[]|{}|null|-|1E|\\ud800|\\u0000|"id": 7,|NaN',
    b"# |- |? |&a |*a|!!int |\r|\n\n|---\n|...\n|%YAML 9\n|\t|: |\x00|\x01|\x7f|\x80",
)
_TOKENS = tuple(word.encode("utf-8", "surrogatepass") for word in (*WORDS, *_UNPRINTABLE))
_TOKENS += tuple(token for line in _MARKUP for token in line.split(b"|"))
_HEAVY = (b"<a>" * 100_000, b"[" * 100_000, b'{"a":' * 100_000, b"9" * 1_000_000, b"x" * 1_000_000, b"\n" * 100_000)
_HEAVY_SHARE = 0.003
_ENCODINGS = (
    "utf-8",
    "utf-8",
    "utf-8-sig",
    "utf-16",
    "utf-16-be",
    "utf-32",
    "latin-1",
    "gbk",
    "shift_jis",
    "utf-7",
    "cp037",
)


def damage_bytes(data: bytes, chance: Random, other: bytes = b"", *, front: int | None = None) -> bytes:
    """Apply one to four mutations: set or flip bytes, drop, repeat or swap chunks, insert tokens, append another file.

    Args:
        front: where half of the blows strike, in bytes from the start; None: they strike anywhere.
    """
    data = bytearray(data)
    for _ in range(chance.randint(1, 4)):
        end = min(len(data), front) if front and chance.random() < 0.5 else len(data)
        at, length = chance.randrange(end + 1), 1 + int(chance.expovariate(1 / 12))
        blow = chance.randrange(9)
        if blow == 0:
            data[at : at + 1] = bytes([chance.choice((0, 1, 0x7F, 0x80, 0xFF, chance.randrange(256)))])
        elif blow == 1 and at < len(data):
            data[at] ^= 1 << chance.randrange(8)
        elif blow == 2:
            del data[at : at + length]
        elif blow == 3 and chance.random() < 0.5:
            del data[at:]
        elif blow == 4:
            data[at:at] = data[at : at + length] * chance.choice((1, 1, 2, 50))
        elif blow == 5:
            to = chance.randrange(len(data) + 1)
            data[at : at + length], data[to : to + length] = data[to : to + length], data[at : at + length]
        elif blow == 6 and other:
            data[at:] = other[chance.randrange(len(other)) :]
        else:
            heavy = chance.random() < _HEAVY_SHARE
            data[at : at if blow == 7 else at + length] = chance.choice(_HEAVY if heavy else _TOKENS)
    return bytes(data)


def encode(text: str, chance: Random) -> bytes:
    """Encode nearly always as UTF-8, sometimes in an encoding that the file does not declare."""
    encoding = chance.choice(_ENCODINGS) if chance.random() < 0.1 else "utf-8"
    return text.encode("utf-8", "surrogatepass") if encoding == "utf-8" else text.encode(encoding, "replace")


def damage_words(words: Sequence[str], chance: Random) -> list[str]:
    """Drop, repeat, move or replace one to three words of a row; the result always differs."""
    damaged = list(words)
    for _ in range(chance.randint(1, 3)):
        at, blow = chance.randrange(len(damaged) + 1), chance.randrange(5)
        if blow == 0:
            damaged[at : at + 1] = []
        elif blow == 1:
            damaged[at:at] = chance.choices(WORDS, k=chance.choice((1, 1, 2, 40)))
        elif blow == 2:
            chance.shuffle(damaged)
        else:
            damaged[at : at + 1] = [chance.choice(WORDS)]
    return damaged if damaged != list(words) else [*words, "x"]


def damage_tree(root: ElementTree.Element, chance: Random, *, within: ElementTree.Element | None = None) -> None:
    """Apply one to three mutations to the elements below `within`, or below the root: text, tag, attributes, place.

    With `within`, what is written is such as XML can say.
    """
    words = WORDS if within is not None else (*WORDS, *_UNPRINTABLE)
    for _ in range(chance.randint(1, 3)):
        parents = [e for e in (within if within is not None else root).iter() if len(e)]
        if not parents:
            return
        parent = chance.choice(parents)
        at, blow = chance.randrange(len(parent)), chance.randrange(8)
        child = parent[at]
        if not isinstance(child.tag, str):  # a comment, whose text has rules of its own
            continue
        if blow == 0:
            del parent[at]
        elif blow == 1:
            parent.insert(at, child)
        elif blow == 2:
            child.tag = chance.choice(("name", "xmin", "ymax", "bndbox", "width", "part", "a"))
        elif blow == 3:
            child.set("a", chance.choice(words))
        elif blow == 4:
            parent[at] = ElementTree.Element(chance.choice(("bndbox", "size", "b")))
            parent[at].append(child)
        elif blow == 5:
            child.insert(0, ElementTree.Comment("1"))
        else:
            child.text = chance.choice(words)


_VALUES: tuple[Any, ...] = (
    None, True, False, 0, -1, 7, 9, 3, 90, 1.5, -0.0, 1e308, -1e16, float("nan"), float("inf"), 10**400, 2**63, [], {},
    [[]], [1], [1, 2, 3, 4], {"a": 1}, [None] * 4, ["1"] * 4, "a.jpg", "/", "\\", "b.jpg", "red", *WORDS, *_UNPRINTABLE,
)  # fmt: skip


def damage_json(content: Any, chance: Random) -> None:
    """Drop, replace, repeat or wrap one to three values, keys and entries of a tree of dicts and lists."""
    for _ in range(chance.randint(1, 3)):
        holder, key = chance.choice(list(_places(content)) or [(None, None)])
        if holder is None:
            return
        blow = chance.randrange(7)
        if blow == 0:
            del holder[key]
        elif blow == 1 and isinstance(holder, list):
            holder.insert(key, json.loads(json.dumps(holder[key])))
        elif blow == 1:
            holder[chance.choice(("id", "bbox", "file_name", "name", "x"))] = holder.pop(key)
        elif blow == 2:
            holder[key] = [holder[key]]
        elif blow == 3:
            other, place = chance.choice(list(_places(content)))
            holder[key] = json.loads(json.dumps(other[place]))
        elif blow == 4:
            holder[key] = {"x": holder[key]}
        else:
            holder[key] = chance.choice(_VALUES)


def _places(content: Any) -> Any:
    """Yield every (dict or list, key) of a tree."""
    if isinstance(content, (dict, list)):
        for key in list(content) if isinstance(content, dict) else range(len(content)):
            yield content, key
            yield from _places(content[key])
