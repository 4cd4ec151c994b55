"""The table of docs/serving.md lists every field of the service as it is."""

from __future__ import annotations

import inspect
import json
import re
from pathlib import Path
from typing import Any

from foretaste.serving.settings import Settings

PAGE = Path(__file__).parents[2] / "docs" / "serving.md"


def told(default: Any) -> str:
    """A default as it is written after ``--set serve.FIELD=``."""
    if default is None or default == "" or default == ():
        return "–"
    text = default if isinstance(default, str) else json.dumps(default)
    return f"`{text.removesuffix('.0')}`"


def table() -> list[str]:
    """The rows, from the fields' defaults and what the docstring says of each."""
    described = inspect.cleandoc(Settings.__doc__ or "").partition("Attributes:\n")[2]
    says = re.findall(r"^    (\w+): (.*(?:\n        .*)*)", described, re.MULTILINE)
    meaning = {field: " ".join(text.split()).replace("``", "`") for field, text in says}
    assert list(meaning) == list(Settings.model_fields)
    rows = []
    for field, about in Settings.model_fields.items():
        default = "needed" if about.is_required() else told(about.default)
        rows.append(f"| `{field}` | {default} | {meaning[field]} |")
    return rows


def test_the_table_of_fields_is_that_of_the_settings() -> None:
    text = PAGE.read_text(encoding="utf-8")
    begin = text.index("| `serve.` | by default |")
    found = [line for line in text[begin:].partition("\n\n")[0].splitlines()[2:]]
    assert found == table(), "put this into docs/serving.md:\n" + "\n".join(table())
