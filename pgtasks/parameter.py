"""Parameter: one parameter of a task, its annotation resolved, and which is for the context."""

import inspect
import types
import typing
from collections.abc import Callable, Mapping
from inspect import Parameter as PythonParameter
from typing import Annotated, Any, Final, NamedTuple

import attrs
import msgspec

from pgtasks.codec import Codec, write_key
from pgtasks.errors import TaskDefinitionError

_STARS: Final[Mapping[Any, str]] = {
    PythonParameter.VAR_POSITIONAL: "*",
    PythonParameter.VAR_KEYWORD: "**",
}
_WITH_A_PLACE: Final = (PythonParameter.POSITIONAL_ONLY, PythonParameter.POSITIONAL_OR_KEYWORD)


@attrs.frozen(eq=False)
class Parameter:
    """One parameter of a task: its name, its kind, and the codec of its values."""

    name: str
    kind: Any
    default: Any
    codec: Codec
    label: str
    """How errors name it: "send() argument user_id"."""
    key: bytes

    @property
    def is_required(self) -> bool:
        """Whether every call has to give it."""
        return self.default is PythonParameter.empty and self.kind not in _STARS

    def encode(self, value: Any) -> bytes:
        """Return a value of this parameter as JSON."""
        return self.codec.encode(value, self.label)

    def decode(self, raw: msgspec.Raw) -> Any:
        """Return the value of this parameter that a JSON text holds."""
        return self.codec.decode(raw, self.label)


class ContextParameter(NamedTuple):
    """The parameter that a worker fills in: its name, and its place if it has one."""

    name: str
    place: int | None


def read_parameters(
    fn: Callable[..., Any], context_type: type | None
) -> tuple[list[Parameter], ContextParameter | None]:
    """Return a function's parameters, and apart from them the one for the context.

    Raises:
        TaskDefinitionError: an annotation cannot be resolved, or its values cannot travel.
    """
    python = list(inspect.signature(fn).parameters.values())
    hints = {parameter.name: _resolve(fn, parameter) for parameter in python}
    context = _find_context(fn, python, hints, context_type)
    parameters = [
        _read(fn, parameter, hints[parameter.name])
        for parameter in python
        if context is None or parameter.name != context.name
    ]
    return parameters, context


def _read(fn: Callable[..., Any], parameter: PythonParameter, annotation: Any) -> Parameter:
    shown = _STARS.get(parameter.kind, "") + parameter.name
    label = f"{fn.__qualname__}() argument {shown}"
    return Parameter(
        name=parameter.name,
        kind=parameter.kind,
        default=parameter.default,
        codec=Codec.of(annotation, f"{fn.__qualname__}() parameter {shown}"),
        label=label,
        key=write_key(parameter.name, label),
    )


def _resolve(fn: Callable[..., Any], parameter: PythonParameter) -> Any:
    """A parameter's annotation as a type; `Any` where there is none."""
    if parameter.annotation is PythonParameter.empty:
        return Any
    # One at a time: the return annotation is not ours to resolve, and the error names one.
    holder = types.SimpleNamespace(__annotations__={"it": parameter.annotation})
    names = getattr(inspect.unwrap(fn), "__globals__", {})
    try:
        return typing.get_type_hints(holder, globalns=names, include_extras=True)["it"]
    except Exception as error:
        raise TaskDefinitionError(
            f"{fn.__qualname__}() parameter {parameter.name} has an annotation that cannot be "
            f"resolved, {parameter.annotation!r:.200}: {error}; import or define the name at the "
            "top of the module, and not under TYPE_CHECKING"
        ) from error


def _find_context(
    fn: Callable[..., Any],
    python: list[PythonParameter],
    hints: Mapping[str, Any],
    context_type: type | None,
) -> ContextParameter | None:
    found = [p for p in python if context_type and _is_context(hints[p.name], context_type)]
    if not found:
        return None
    if len(found) > 1:
        names = " and ".join(parameter.name for parameter in found)
        raise TaskDefinitionError(
            f"{fn.__qualname__}() has two parameters for the context, {names}: keep one"
        )
    [context] = found
    places = [parameter for parameter in python if parameter.kind in _WITH_A_PLACE]
    place = places.index(context) if context in places else None
    if context.kind in _STARS or (context.kind is PythonParameter.POSITIONAL_ONLY and place):
        raise TaskDefinitionError(
            f"{fn.__qualname__}() parameter {context.name} is for the context and cannot be "
            "filled in there: make it the first parameter"
        )
    return ContextParameter(context.name, place)


def _is_context(hint: Any, context_type: type) -> bool:
    if typing.get_origin(hint) is Annotated:
        hint = hint.__origin__
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return [a for a in typing.get_args(hint) if a is not types.NoneType] == [context_type]
    return hint is context_type
