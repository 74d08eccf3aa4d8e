"""The text form of a call with literal arguments: `name`, `name(rate=0.3,at="input")`."""

import ast
import json
import types
import typing
import warnings
from collections.abc import Mapping
from typing import Any, Literal

_CLOSING = {"(": ")", "[": "]", "{": "}"}


def split(text: str, separator: str) -> list[str]:
    """Splits `text` at `separator`, but not inside brackets or quotes; strips the parts.

    Raises:
      ValueError: brackets or quotes do not close.
    """
    parts, start, open_brackets, quote, escaped = [], 0, [], "", False
    for i, c in enumerate(text):
        if quote:
            if not escaped and c == quote:
                quote = ""
            escaped = c == "\\" and not escaped
        elif c in "\"'":
            quote = c
        elif c in _CLOSING:
            open_brackets.append(_CLOSING[c])
        elif open_brackets and c == open_brackets[-1]:
            open_brackets.pop()
        elif c == separator and not open_brackets:
            parts.append(text[start:i])
            start = i + 1
    if quote or open_brackets:
        raise ValueError(f"{text!r} does not close its {quote or open_brackets[-1]}")
    return [part.strip() for part in [*parts, text[start:]]]


def parse_call(text: str) -> tuple[str, dict[str, Any]]:
    """Parses `name` or `name(key=literal, ...)`.

    Returns:
      The name, which may hold dots and one colon, and the arguments.

    Raises:
      ValueError: the text is not of this form; nothing in it is ever evaluated.
    """
    head, bracket, rest = text.strip().partition("(")
    name = head.strip()
    if not all(part.isidentifier() for part in name.replace(":", ".", 1).split(".")):
        raise ValueError(f"expected a name such as bernoulli or bernoulli(rate=0.3), got {text!r}")
    if not bracket:
        return name, {}
    try:
        source = f"_({rest.rstrip()}"
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # a backslash that Python would let through for now
            call = ast.parse(source, mode="eval").body
        whole = (call.end_lineno, call.end_col_offset) == (1, len(source.encode()))
        if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Name) or not whole:
            raise SyntaxError
        if call.args:
            raise ValueError(f"{text!r}: name each argument, as in {name}(argument=value)")
        arguments = {}
        for keyword in call.keywords:
            if keyword.arg is None:
                raise SyntaxError
            if keyword.arg in arguments:
                raise ValueError(f"{text!r} gives {keyword.arg} twice")
            try:
                arguments[keyword.arg] = ast.literal_eval(keyword.value)
            except (ValueError, TypeError):
                raise ValueError(
                    f"{text!r}: the value of {keyword.arg} must be a literal: a number, a quoted "
                    "string, True, False, None or a tuple of these"
                ) from None
    except (SyntaxError, RecursionError, MemoryError, UnicodeError):
        raise ValueError(
            f"expected {name}(argument=value, ...) with literal values, got {text!r}; "
            'a string with a backslash is written r"..."'
        ) from None
    return name, arguments


def format_call(name: str, arguments: Mapping[str, Any]) -> str:
    """The inverse of `parse_call`."""
    if not arguments:
        return name
    return f"{name}({','.join(f'{k}={format_value(v)}' for k, v in arguments.items())})"


def format_value(value: Any) -> str:
    """The text of a literal."""
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, tuple):
        return f"({','.join(format_value(v) for v in value)}{',' if len(value) == 1 else ''})"
    return repr(value)


def check_type(value: Any, annotation: Any, name: str) -> None:
    """Refuses a literal that does not fit a field's annotation.

    Knows bool, int, float, str, None, `Literal`, `tuple[...]` and unions of these; anything else
    is let through.

    Raises:
      TypeError: it does not fit.
    """
    if not _fits(value, annotation):
        raise TypeError(f"{name} must be {describe(annotation)}, got {value!r}")


def _fits(value: Any, annotation: Any) -> bool:
    origin, args = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return _fits(value, args[0])
    if origin in (typing.Union, types.UnionType):
        return any(_fits(value, arg) for arg in args)
    if origin is Literal:
        return value in args
    if origin is tuple:
        if not isinstance(value, tuple):
            return False
        if len(args) == 2 and args[1] is Ellipsis:
            return all(_fits(v, args[0]) for v in value)
        return len(value) == len(args) and all(map(_fits, value, args))
    if annotation is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    if annotation is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if annotation in (bool, str):
        return isinstance(value, annotation)
    if annotation in (None, types.NoneType):
        return value is None
    return True


def describe(annotation: Any) -> str:
    """What an annotation that `check_type` knows allows, in words."""
    origin, args = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return describe(args[0])
    if origin in (typing.Union, types.UnionType):
        return " or ".join(map(describe, args))
    if origin is Literal:
        return "one of " + ", ".join(map(repr, args))
    if origin is tuple:
        items = {float: "numbers", int: "integers", str: "strings"}.get(args[0]) if args else None
        return f"a tuple of {items}, such as (512,256)" if items == "integers" else "a tuple"
    names = {float: "a number", int: "an integer", bool: "True or False", str: "a string"}
    names |= {types.NoneType: "None", None: "None"}
    return names.get(annotation, getattr(annotation, "__name__", str(annotation)))
