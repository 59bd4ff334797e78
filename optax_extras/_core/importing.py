"""Loading of objects that users name as ``module:attribute(argument=value)``."""

import ast
import contextlib
import difflib
import importlib
import inspect
import sys
from collections.abc import Collection, Iterable, Mapping
from pathlib import PurePath
from types import ModuleType
from typing import Any

_NOT_BY_NAME = (
    inspect.Parameter.POSITIONAL_ONLY,
    inspect.Parameter.VAR_POSITIONAL,
    inspect.Parameter.VAR_KEYWORD,
)


def load(
    text: str, bundled: Mapping[str, Any], called: str
) -> tuple[Any, dict[str, Any]]:
    """Loads an object, and reads the arguments that are written after its name.

    Args:
      text: one of ``bundled``, or ``module:attribute``; then perhaps arguments by name,
        as in ``"adam(b1=0.8)"``, whose values are Python literals.
      bundled: objects by the names that need no module.
      called: what is loaded, in messages.

    Returns:
      The object, and the arguments.

    Raises:
      ValueError: the text is malformed, or there is no such object.
    """
    name, arguments = _parse(text)
    if name in bundled:
        return bundled[name], arguments
    if ":" not in name:
        others = f" or one of {', '.join(bundled)}" if bundled else ""
        raise ValueError(
            f"{called} must be MODULE:ATTRIBUTE{others}; got"
            f" {name!r}{nearest(name, bundled)}"
        )
    return load_attribute(name), arguments


def load_attribute(target: str) -> Any:
    """Loads the object at ``module:attribute``.

    Args:
      target: module, which is also searched for in the current folder, and attribute,
        which may be dotted.

    Raises:
      ValueError: the target is malformed, or there is no such module or attribute.
    """
    module, colon, attribute = target.partition(":")
    if not (module and colon and attribute):
        raise ValueError(f"{target!r} is not of the form MODULE:ATTRIBUTE")
    if "/" in module or "\\" in module or module.endswith(".py"):
        path = PurePath(module)
        raise ValueError(
            f"{target!r} names a file; write '{path.stem}:{attribute}', in the folder"
            f" {str(path.parent)!r}"
        )
    found: Any = None
    try:
        found = import_module(module)
        for name in attribute.split("."):
            found = getattr(found, name)
    except AttributeError as error:
        advice = nearest(name, dir(found))
        raise ValueError(f"cannot load {target!r}: {cause(error)}{advice}") from error
    except (Exception, SystemExit) as error:
        raise ValueError(f"cannot load {target!r}: {cause(error)}") from error
    return found


def import_module(name: str) -> ModuleType:
    """Imports a module, which is also searched for in the current folder."""
    sys.path.insert(0, "")
    try:
        return importlib.import_module(name)
    finally:
        with contextlib.suppress(ValueError):  # the module may have removed it
            sys.path.remove("")


def check_call(
    called: str,
    function: Any,
    arguments: Collection[str],
    optional: Collection[str] = (),
    advice: str = "give it in brackets after the name",
) -> None:
    """Checks that an object can be called with some arguments by name.

    Args:
      called: the object in messages.
      function: the object.
      arguments: names of the arguments, each of which it must take.
      optional: names of arguments that it gets if it takes them.
      advice: what to do where it needs another argument.

    Raises:
      ValueError: it cannot be called, does not take one of the arguments, or needs
        another.
    """
    if not callable(function):
        raise ValueError(f"{called} must be a function, got {function!r}")
    try:
        parameters = inspect.signature(function).parameters
    except ValueError:  # some of those that are written in C have no signature
        return
    named = {k: p for k, p in parameters.items() if p.kind not in _NOT_BY_NAME}
    if all(p.kind != p.VAR_KEYWORD for p in parameters.values()):
        for name in arguments:
            if name not in named:
                takes = ", ".join(f"`{k}`" for k in named) or "no arguments"
                raise ValueError(f"{called} does not take `{name}`; it takes {takes}")
    for name, parameter in named.items():
        if parameter.default is parameter.empty and name not in (*arguments, *optional):
            raise ValueError(f"{called} needs `{name}`; {advice}")


def cause(error: BaseException) -> str:
    """One line of what an error says."""
    kind, text = type(error).__name__, str(error).strip()
    if isinstance(error, SyntaxError):
        text = f"{error.msg} ({error.filename}, line {error.lineno})"
    first = text.partition("\n")[0]
    if first and isinstance(error, (AttributeError, ImportError, ValueError)):
        return first  # they name what is wrong
    return f"{kind}: {first}" if first else kind


def nearest(name: str, known: Iterable[str]) -> str:
    """Advice that names the nearest of the known names, if one is near."""
    found = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean {found[0]!r}?" if found else ""


def _parse(text: str) -> tuple[str, dict[str, Any]]:
    """The name and the arguments of ``name(argument=value, ...)``."""
    name, bracket, rest = text.partition("(")
    if not bracket:
        return text, {}
    source = f"f({rest}"
    try:
        call = ast.parse(source, mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        call = None
    if not (isinstance(call, ast.Call) and isinstance(call.func, ast.Name)):
        raise ValueError(f"{text!r} is not of the form NAME(argument=value, ...)")
    if call.args or any(keyword.arg is None for keyword in call.keywords):
        raise ValueError(f"the arguments of {text!r} must be written argument=value")
    arguments: dict[str, Any] = {}
    for keyword in call.keywords:
        argument = str(keyword.arg)
        if argument in arguments:
            raise ValueError(f"`{argument}` is given twice in {text!r}")
        try:
            arguments[argument] = ast.literal_eval(keyword.value)
        except (ValueError, TypeError, RecursionError, MemoryError) as error:
            value = ast.get_source_segment(source, keyword.value)
            raise ValueError(
                f"`{argument}` of {text!r} must be a Python literal, such as 0.1, True"
                f" or 'text' with its quotes; got {value}"
            ) from error
    return name.strip(), arguments
