"""Where a run goes when nobody says."""

from __future__ import annotations

import re
from itertools import count
from pathlib import Path

from foretaste.experiments.recipe import Recipe


def free_folder(recipe: Recipe, root: Path = Path("runs")) -> Path:
    """``runs/DATA-MODEL``, or with the first number that is free, as in ``runs/DATA-MODEL-2``."""
    data = re.sub(r"[^\w-]+", "-", Path(recipe.data.source).stem).strip("-") or "data"
    base = root / f"{data}-{recipe.model['name']}"
    if not base.exists():
        return base
    numbered = (base.with_name(f"{base.name}-{number}") for number in count(2))
    return next(folder for folder in numbered if not folder.exists())
