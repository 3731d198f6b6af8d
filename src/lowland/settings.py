"""Change the settings of a recipe by name: typed by the dataclass, with near names for a typo."""

import json
import types
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, fields, is_dataclass, replace
from difflib import get_close_matches
from enum import Enum
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

T = TypeVar("T")

TRUTH = {"true": True, "yes": True, "on": True, "1": True,
         "false": False, "no": False, "off": False, "0": False}  # fmt: skip


def apply_settings(settings: T, changes: Sequence[str]) -> T:
    """Change settings by dotted names, as the command line's ``--set`` gives them.

    Args:
        settings: A frozen dataclass; its fields may be dataclasses and tuples of them.
        changes: Texts such as ``"schedule.cycles.0.steps=5"``, applied in order. Values of
            tuples are separated by commas; ``none`` is None where the type allows it.

    Returns:
        A changed copy.

    Raises:
        ValueError: If a name is unknown (the sentence holds near names and all known ones), or
            a value does not fit the type of its field.

    Source:
        Ours.
    """
    for change in changes:
        name, equals, text = change.partition("=")
        name = name.strip()
        if not equals:
            raise ValueError(f"a setting is given as name=value; got {change!r}.")
        settings = put(settings, type(settings), name.split("."), text.strip(), name, settings)
    return settings


def put(value: Any, kind: Any, parts: list[str], text: str, name: str, root: Any) -> Any:
    """A copy of ``value`` in which the part that ``parts`` leads to is read from ``text``."""
    if not parts:
        if text.lower() == "none" and type(None) in options(kind):
            return None
        if is_dataclass(value) or holds_dataclasses(value):
            raise ValueError(
                f"{name} is a group of settings; name one of them: "
                f"{', '.join(known_names(value, name))}."
            )
        return parse(text, kind, name)
    head, rest = parts[0], parts[1:]
    if is_dataclass(value) and not isinstance(value, type) and head in names_of(value):
        inner = get_type_hints(type(value))[head]
        return replace(value, **{head: put(getattr(value, head), inner, rest, text, name, root)})
    if isinstance(value, tuple) and head.isdecimal() and int(head) < len(value):
        place = int(head)
        new = put(value[place], item_kind(kind, place), rest, text, name, root)
        return (*value[:place], new, *value[place + 1 :])
    raise ValueError(unknown(name, known_names(root)))


def unknown(name: str, known: Sequence[str]) -> str:
    """The sentence for a name that is not there."""
    near = get_close_matches(name, known, n=3, cutoff=0.5)
    if not near:  # a short name may be the end of a long one
        near = [one for one in known if one.rsplit(".", 1)[-1] == name.rsplit(".", 1)[-1]][:3]
    hint = f" Did you mean {' or '.join(near)}?" if near else ""
    return f"there is no setting {name!r}.{hint} Known settings: {', '.join(known)}."


def known_names(value: Any, name: str = "") -> list[str]:
    """Every setting by its dotted name; of equal tuple items only the first is listed."""
    if is_dataclass(value):
        parts = [(key, getattr(value, key)) for key in names_of(value)]
    elif holds_dataclasses(value):
        parts = [("0", value[0])]
    else:
        return [name]
    return [
        one for key, part in parts for one in known_names(part, f"{name}.{key}" if name else key)
    ]


def names_of(value: Any) -> list[str]:
    """The fields of a dataclass that can be set."""
    return [field.name for field in fields(value) if field.init]


def holds_dataclasses(value: Any) -> bool:
    """Whether a value is a tuple of groups of settings."""
    return isinstance(value, tuple) and any(is_dataclass(item) for item in value)


def item_kind(kind: Any, place: int) -> Any:
    """The type of one item of a tuple type; Any where it says nothing."""
    for option in options(kind):
        items = get_args(option)
        if get_origin(option) is tuple and items:
            return items[0] if items[-1] is Ellipsis else items[min(place, len(items) - 1)]
    return Any


def options(kind: Any) -> tuple[Any, ...]:
    """The members of a union, or the type itself."""
    return get_args(kind) if get_origin(kind) in (Union, types.UnionType) else (kind,)


def parse(text: str, kind: Any, name: str) -> Any:
    """Read a text as one of the types that a field allows, in the order of the annotation."""
    choices = options(kind)
    if type(None) in choices and text.lower() in ("none", "null"):
        return None
    for choice in sorted(choices, key=lambda choice: choice is str):  # str takes anything
        try:
            return parse_one(text, choice, name)
        except (ValueError, KeyError):
            continue
    raise ValueError(f"{name} must be {describe(kind)}; got {text!r}.")


def parse_one(text: str, kind: Any, name: str) -> Any:
    """Read a text as one type; ValueError or KeyError if it does not fit."""
    if kind is bool:
        return TRUTH[text.lower()]
    if kind is int:
        return whole(text)
    if get_origin(kind) is Literal:
        return {str(choice): choice for choice in get_args(kind)}[text]
    if get_origin(kind) is tuple or kind is tuple:
        items = [item.strip() for item in text.strip("()[] ").split(",") if item.strip()]
        sizes = get_args(kind)
        if sizes and sizes[-1] is not Ellipsis and len(sizes) != len(items):
            raise ValueError("wrong number of items")
        return tuple(parse(item, item_kind(kind, place), name) for place, item in enumerate(items))
    if isinstance(kind, type) and issubclass(kind, Enum):
        return {member.name.lower(): member for member in kind}[text.lower()]
    if kind is Any:
        return json.loads(text)
    if kind in (str, float, Path):
        return kind(text)
    raise ValueError("not a type that can be set from a text")


def whole(text: str) -> int:
    """A whole number, also as ``1e4`` or ``10_000``."""
    try:
        return int(text)
    except ValueError:
        number = float(text)
        if not number.is_integer():
            raise ValueError("not a whole number") from None
        return int(number)


def describe(kind: Any) -> str:
    """A type in words."""
    words = {int: "a whole number", float: "a number", bool: "true or false", str: "a text",
             type(None): "none", Path: "a path"}  # fmt: skip
    if kind in words:
        return words[kind]
    if get_origin(kind) is Literal:
        return "one of " + ", ".join(str(choice) for choice in get_args(kind))
    if isinstance(kind, type) and issubclass(kind, Enum):
        return "one of " + ", ".join(member.name.lower() for member in kind)
    if get_origin(kind) is tuple:
        items = [describe(item) for item in get_args(kind) if item is not Ellipsis]
        return "values separated by commas, each " + " then ".join(items)
    if len(options(kind)) > 1:
        return " or ".join(describe(option) for option in options(kind))
    return str(kind)


def from_plain(kind: type[T], values: Mapping[str, Any], base: T | None = None) -> T:
    """Build settings from the plain values of a record.

    Args:
        kind: The dataclass of the settings.
        values: What the record holds: mappings, lists, strings, numbers, None.
        base: Where to take what the record does not hold; without it, the defaults of ``kind``.

    Returns:
        The settings; ``from_plain(type(s), plain(s)) == s`` for finite numbers.

    Raises:
        ValueError: If the record holds an unknown name, lacks one without a default, or holds a
            value that does not fit.

    Source:
        Ours.
    """
    return build(kind, values, base, "")


def build(kind: Any, value: Any, base: Any, name: str) -> Any:
    """One value of type ``kind`` from its plain form."""
    for option in options(kind):
        if is_dataclass(option) and isinstance(value, Mapping):
            return build_group(option, value, base if type(base) is option else None, name)
        if get_origin(option) is tuple and isinstance(value, list | tuple):
            return tuple(
                build(item_kind(option, place), item, None, f"{name}.{place}")
                for place, item in enumerate(value)
            )
        if option is type(None) and value is None:
            return None
        if option is Any or (get_origin(option) or option) is type(value):
            return value
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise ValueError(f"{name} must be {describe(kind)}; got {json.dumps(value)}.")
    return parse(str(value), kind, name)  # an int for a float, a name for an Enum


def build_group(kind: Any, values: Mapping[str, Any], base: Any, name: str) -> Any:
    """A dataclass from a mapping; unknown and missing names are refused."""
    hints = get_type_hints(kind)
    known = [field.name for field in fields(kind) if field.init]
    prefix = f"{name}." if name else ""
    for key in values:
        if key not in known:
            raise ValueError(unknown(prefix + key, [prefix + one for one in known]))
    chosen: dict[str, Any] = {}
    for field in fields(kind):
        if field.name in values:
            inner = getattr(base, field.name, None)
            chosen[field.name] = build(
                hints[field.name], values[field.name], inner, prefix + field.name
            )
        elif base is not None:
            chosen[field.name] = getattr(base, field.name)
        elif field.default is MISSING and field.default_factory is MISSING:
            raise ValueError(f"the settings must hold {prefix}{field.name}; they do not.")
    return kind(**chosen)
