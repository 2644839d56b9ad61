"""HTML pages from Jinja templates: all text is escaped, and a name that a template misses is an error."""

from pathlib import Path
from typing import Any


def render_html(template: Path, **values: Any) -> str:
    """The template filled in.

    Args:
        template: its file; its folder holds what it includes.
        values: name in the template → value.

    Raises:
        ModuleNotFoundError: jinja2 is not installed.
        jinja2.UndefinedError: the template names something that is not among the values.
    """
    try:
        from jinja2 import Environment, FileSystemLoader, StrictUndefined
    except ModuleNotFoundError as error:
        message = "the page needs jinja2, which is not installed: pip install jinja2"
        raise ModuleNotFoundError(message, name=error.name) from error
    environment = Environment(
        loader=FileSystemLoader(template.parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(template.name).render(**values)
