"""A cheaper `jaxtyping.jaxtyped` for tests, which makes the same checks of arguments and results.

The decorator of jaxtyping binds the signature of each call in Python, checks the arguments twice, and compiles the
checks of a nested function at each call of the function around it. That took about half of the time of the training
tests, and more under coverage. This decorator lets beartype check each call once, within one context of shapes.
"""

import dataclasses
import functools
import inspect
import typing
from collections.abc import Callable
from typing import Any

import jaxtyping
from beartype.roar import BeartypeCallHintViolation

Function = Callable[..., Any]

slow = jaxtyping.jaxtyped
shapes = jaxtyping.jaxtyped("context")


def checked(function: Any = None, /, *, typechecker: Callable[[Function], Function]) -> Any:
    """The function or dataclass with its arguments and results checked, as by `jaxtyping.jaxtyped`."""
    if function is None:
        return functools.partial(checked, typechecker=typechecker)
    if inspect.isclass(function):
        if dataclasses.is_dataclass(function) and function.__init__.__globals__.get("__name__") != __name__:
            function.__init__ = checked(function.__init__, typechecker=typechecker)  # type: ignore[misc]
        return function
    if "<locals>" in function.__qualname__ and not _has_shapes(function):
        return function  # made anew at each call of the function around it; mypy checks its plain types
    inner: Function | None = None
    shaped = False

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        nonlocal inner, shaped
        if jaxtyping.config.jaxtyping_disable:
            return function(*args, **kwargs)
        if inner is None:  # compiled at the first call: a test run calls few of the functions that it imports
            compiled, shaped = _compiled(function, typechecker)
            inner = compiled  # last, since another thread may be about to call
        if not shaped:
            return inner(*args, **kwargs)
        try:
            with shapes:
                return inner(*args, **kwargs)
        except BeartypeCallHintViolation as error:
            raise jaxtyping.TypeCheckError(f"Type-check error: {error}") from error

    return call


def _has_shapes(function: Function) -> bool:
    """Whether an annotation has a shape, or is a text that may stand for one."""
    return any(isinstance(hint, str) or "jaxtyping" in str(hint) for hint in function.__annotations__.values())


def _compiled(function: Function, typechecker: Callable[[Function], Function]) -> tuple[Function, bool]:
    """The checked function, and whether its calls need a context of shapes of their own."""
    if inspect.isgeneratorfunction(function):  # jaxtyping leaves out what it yields, which may have many shapes
        return slow(function, typechecker=typechecker), False
    try:
        typing.get_type_hints(function, include_extras=True)
    except NameError:  # a name that is imported for type checkers alone, which jaxtyping leaves out
        return slow(function, typechecker=typechecker), False
    return typechecker(function), _has_shapes(function)


def install() -> None:
    """Makes the import hook of jaxtyping, which names `jaxtyping.jaxtyped` in what it compiles, use this decorator."""
    jaxtyping.jaxtyped = checked  # type: ignore[assignment]
