"""A page and what it shows as JSON: what all pages have in common."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import jinja2

from trocar import __version__
from trocar.data.files import atomic_write_text


def rendered(template: str, filters: Mapping[str, Callable[..., str]] | None = None, **shown: Any) -> str:
    """A template with what it shows; `version` of trocar and when it was `written` are there as well."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("trocar.reporting"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(filters or {})
    written = datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z")
    return environment.get_template(template).render(version=__version__, written=written, **shown)


def write_json(tree: Any, path: Path) -> None:
    """Write plain data, without NaN. Raises `UserError` where the place cannot be written to."""
    atomic_write_text(path, json.dumps(tree, indent=1, ensure_ascii=False, allow_nan=False) + "\n")
