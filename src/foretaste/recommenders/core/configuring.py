"""Building a configuration from what a user wrote, with errors a user understands."""

from __future__ import annotations

from collections.abc import Mapping
from types import NoneType
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ValidationError

from foretaste.errors import SECRET, InputError
from foretaste.suggesting import nearest

Config = TypeVar("Config", bound=BaseModel)


def build_config(config: type[Config], values: Mapping[str, Any], *, place: str) -> Config:
    """A ``config`` from ``values``.

    Args:
        config: the class of the configuration.
        values: fields by name.
        place: where the values come from, for messages, such as ``recipe.toml [model]``.

    Raises:
        InputError: one line that names the field, the value and the nearest or allowed one.
    """
    try:
        return config.model_validate(dict(values))
    except ValidationError as error:
        raise InputError(f"{place}: {_first_line(config, error)}") from None


def _first_line(config: type[BaseModel], error: ValidationError) -> str:
    first = error.errors(include_url=False)[0]
    location = [str(part) for part in first["loc"]]
    if first["type"] == "extra_forbidden":
        fields = _fields(config, location[:-1])
        return f'unknown key "{".".join(location)}"{nearest(location[-1], fields)}'
    message = first["msg"].removeprefix("Value error, ")
    message = message[0].lower() + message[1:]
    if not location:
        return message
    if first["type"] == "value_error" and isinstance(first["input"], dict):  # of fields together
        return f"{'.'.join(location)}: {message}"
    if first["type"] == SECRET:
        return f"{'.'.join(location)}: {message}"
    return f"{'.'.join(location)} = {first['input']!r}: {message}"


def _fields(config: type[BaseModel], path: list[str]) -> list[str]:
    for part in path:
        field = config.model_fields.get(part)
        annotation = field.annotation if field else None
        # A section may be left out: ``Section | None``.
        parts = [part for part in get_args(annotation) or (annotation,) if part is not NoneType]
        if not (len(parts) == 1 and isinstance(parts[0], type) and issubclass(parts[0], BaseModel)):
            return []
        config = parts[0]
    return list(config.model_fields)
