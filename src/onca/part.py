"""Parts: frozen values that print as the expression that made them, and are read back from it.

A part is a selector, a difficulty, a rule, an objective, a method or a schedule. The same text stands in run records,
table rows and on the command line, so `str(read(text))` is `text` up to white space.
"""

from __future__ import annotations

import ast
import copy
import functools
import io
import tokenize
import warnings
from collections.abc import Iterator
from typing import Any, ClassVar, TypeVar

NAMES: dict[str, Any] = {}  # what an expression may name: classes (to be called) and values (used bare)

P = TypeVar("P", bound="Part")


class Part:
    """Base of everything an expression can name. Equality, hash and text are those of the expression."""

    kind: ClassVar[str] = "part"
    name: ClassVar[str] = ""
    own_needs: ClassVar[frozenset[str]] = frozenset()  # what a pool must hold for it: "support", "label" ...
    _text: str

    def __init_subclass__(cls, name: str = "", **more: Any) -> None:
        super().__init_subclass__(**more)
        if name:
            cls.name = name
            NAMES[name] = cls
            _read.cache_clear()

    def __new__(cls: type[P], *args: Any, **named: Any) -> P:
        self = super().__new__(cls)
        inside = [spell(value) for value in args] + [f"{key}={spell(value)}" for key, value in named.items()]
        object.__setattr__(self, "_text", f"{cls.name}({', '.join(inside)})")
        return self

    def parts(self) -> Iterator[Part]:
        """Itself and all parts inside it."""
        yield self
        for value in vars(self).values():
            for item in _flat(value):
                yield from item.parts()

    @property
    def needs(self) -> frozenset[str]:
        """What a pool must hold for it and for all parts inside it."""
        return frozenset().union(*(part.own_needs for part in self.parts()))

    def __str__(self) -> str:
        return self._text

    __repr__ = __str__

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Part) and str(self) == str(other)

    def __hash__(self) -> int:
        return hash(self._text)


class Shorthand(Part):
    """A part that stands for a longer expression, made once, so that bad arguments are refused at construction.

    Stands before the kind among the bases: `class hcl(Shorthand, Method, name="hcl")`.
    """

    def meaning(self) -> Part:
        """The longer expression."""
        raise NotImplementedError  # abstract

    def __post_init__(self) -> None:
        object.__setattr__(self, "_meaning", self.meaning())

    def __call__(self, *inputs: Any) -> Any:
        return self._meaning(*inputs)

    _meaning: Any


def _flat(value: Any) -> Iterator[Part]:
    if isinstance(value, Part):
        yield value
    elif isinstance(value, tuple):
        for item in value:
            yield from _flat(item)


def bare(part: P, name: str) -> P:
    """A part that is used by its name alone, without parentheses: `infonce`, `same_class`."""
    object.__setattr__(part, "_text", name)
    NAMES[name] = part
    _read.cache_clear()
    return part


def spell(value: Any) -> str:
    """A value as it stands inside an expression."""
    if isinstance(value, tuple):
        return "(" + ", ".join(spell(item) for item in value) + ("," if len(value) == 1 else "") + ")"
    if isinstance(value, float):
        return repr(float(value))  # a numpy number spells itself otherwise
    return str(value) if isinstance(value, Part) else repr(value)


def require(owner: Part, value: Any, kind: str, argument: str) -> None:
    """Raises ValueError when an argument is not a part of the kind that is needed there."""
    if isinstance(value, Part) and value.kind == kind:
        return
    what = f"{value} is a {value.kind}" if isinstance(value, Part) else f"got {value!r}"
    if isinstance(value, type) and issubclass(value, Part):
        what = f"{value.name} needs its arguments: {signature(value)}"
    raise ValueError(f"{owner}: {argument} must be a {kind}; {what}")


def nearest(word: str, known: Any) -> str:
    """' Did you mean ...?' for a misspelt word, or the list of what is known."""
    import difflib

    close = difflib.get_close_matches(word, list(known), n=3, cutoff=0.5)
    return f"did you mean {' or '.join(close)}?" if close else f"known are {', '.join(sorted(known))}"


def signature(thing: Any) -> str:
    import inspect

    parameters = inspect.signature(thing.__init__).parameters.values()
    words = [
        f"{'*' if p.kind is p.VAR_POSITIONAL else ''}{p.name}"
        + ("" if p.default is p.empty else f"={spell(p.default)}")
        for p in parameters
        if p.name != "self"
    ]
    return f"{thing.name}({', '.join(words)})"


def read(text: str) -> Part:
    """The part that `text` names, e.g. `chain(drop(hardest(0.1), refill=True), infonce)`.

    Grammar: names, calls, keyword arguments, numbers (with a minus), strings, True/False, tuples inside `total`,
    and `& | ~` between selectors. The same text gives the same part, since parts never change.

    Raises:
        ValueError: anything else, with the nearest names where a name is not known.
    """
    if not isinstance(text, str):
        raise ValueError(f"read takes the text of an expression; got {type(text).__name__}")
    return _read(text.strip())


@functools.lru_cache(maxsize=256)  # a text may come with every step, and catch_warnings forgets what was shown once
def _read(source: str) -> Part:
    value = _build(_parse(source), source)
    if not isinstance(value, Part):
        raise ValueError(f"cannot read {source!r}: it is {_what(value)}, not an expression of parts")
    return _respell(value, source)


def _parse(source: str) -> ast.expr:
    try:
        with warnings.catch_warnings(action="ignore"):  # what looks odd to Python is refused in our own words
            return ast.parse(source, mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as problem:
        raise ValueError(f"cannot read {source!r}: {getattr(problem, 'msg', problem)}") from None


def _what(value: Any) -> str:
    if isinstance(value, type):
        return f"a name that needs its arguments, {signature(value)}"
    return f"the {type(value).__name__} {value!r}"


def _build(node: ast.expr, source: str, inside: str = "") -> Any:
    match node:
        case ast.Constant(value=bool() | int() | float() | str() as value):
            return value
        case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int() | float() as value)) if value is not True:
            return -value
        case ast.Name(id=name):
            if name not in NAMES:
                raise ValueError(f"cannot read {source!r}: {name!r} is not known; {nearest(name, NAMES)}")
            return NAMES[name]
        case ast.Tuple(elts=items) if inside == "total":
            return tuple(_build(item, source) for item in items)
        case ast.UnaryOp(op=ast.Invert(), operand=operand):
            return _respell(_operate("~", [_build(operand, source)], source), _words(node, source))
        case ast.BinOp(left=left, op=ast.BitAnd() | ast.BitOr() as op, right=right):
            sign = "&" if isinstance(op, ast.BitAnd) else "|"
            sides = [_build(left, source), _build(right, source)]
            return _respell(_operate(sign, sides, source), _words(node, source))
        case ast.Call(func=ast.Name(id=name)):
            return _respell(_call(node, name, source), _words(node, source))
    raise ValueError(f"cannot read {source!r}: {_words(node, source)!r} has no place in an expression")


def _words(node: ast.expr, source: str) -> str:
    return ast.get_source_segment(source, node) or source


def _operate(sign: str, sides: list[Any], source: str) -> Any:
    for side in sides:
        if not (isinstance(side, Part) and side.kind == "selector"):
            what = f"{side} is a {side.kind}" if isinstance(side, Part) else _what(side)
            raise ValueError(f"cannot read {source!r}: {sign} joins selectors; {what}")
    if sign == "~":
        return ~sides[0]
    return sides[0] & sides[1] if sign == "&" else sides[0] | sides[1]


def _call(node: ast.Call, name: str, source: str) -> Part:
    maker = NAMES.get(name)
    if maker is None:
        raise ValueError(f"cannot read {source!r}: {name!r} is not known; {nearest(name, NAMES)}")
    if isinstance(maker, Part):
        raise ValueError(f"cannot read {source!r}: {name} takes no arguments and no parentheses; write {name}")
    args = [_build(item, source, inside=name) for item in node.args]
    named = {key.arg: _build(key.value, source, inside=name) for key in node.keywords if key.arg is not None}
    if len(named) < len(node.keywords):
        raise ValueError(f"cannot read {source!r}: ** and repeated arguments have no place in an expression")
    try:
        part = maker(*args, **named)
    except TypeError as problem:
        raise ValueError(f"cannot read {source!r}: {name} is {signature(maker)} ({problem})") from None
    assert isinstance(part, Part)
    return part


def _respell(part: Part, words: str) -> Part:
    """Gives a part the words it was read from, so that written defaults and spellings of numbers stay."""
    text = _tidy(words)
    if text == str(part):
        return part
    respelt = copy.copy(part)
    object.__setattr__(respelt, "_text", text)
    return respelt


def _tidy(source: str) -> str:
    words = []
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            raise ValueError(f"cannot read {source!r}: comments have no place in an expression")
        if token.type in (tokenize.NAME, tokenize.NUMBER, tokenize.STRING, tokenize.OP):
            words.append({",": ", ", "&": " & ", "|": " | "}.get(token.string, token.string))
    return "".join(words)
