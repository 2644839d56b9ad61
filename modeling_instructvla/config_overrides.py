"""Fields of the configuration and the processor on the command line, by their public names."""

import re
from collections.abc import Iterable
from typing import Any

import yaml

from instructvla.configuration_instructvla import InstructVLAConfig
from instructvla.configuration_sections import refuse_unknown

EXPONENT = re.compile(r"[+-]?\d+(\.\d*)?[eE][+-]?\d+")  # 1e-3, which YAML 1.1 takes for a word
LISTS = ("cameras", "target_modules")  # where one word is a list of one


def parse_overrides(settings: Iterable[str]) -> dict[str, Any]:
    """Overrides for `InstructVLAConfig.from_dict`, nested by section.

    Args:
        settings: "field=value" or "section.field=value"; the value is YAML, and "a,b" is a list.

    Raises:
        ValueError: no "=", an unknown top-level field, a value that is no YAML, or one field given twice.
    """
    overrides: dict[str, Any] = {}
    for setting in settings:
        path, equals, text = setting.partition("=")
        names = path.strip().split(".")
        if not equals or not all(names) or not text.strip():
            raise ValueError(f"--set {setting} is not FIELD=VALUE, such as adapter_config.alpha=256.")
        refuse_unknown(names[:1], InstructVLAConfig.own_fields() - {"library_versions"}, "--set ")
        place = overrides
        for name in names[:-1]:
            place = place.setdefault(name, {})
            if not isinstance(place, dict):
                raise ValueError(f"--set {setting} sets a part of {name}, which another --set gives whole.")
        if names[-1] in place:
            raise ValueError(f"--set gives {path.strip()} twice.")
        value = parse_value(setting, text.strip())
        place[names[-1]] = [value] if names[-1] in LISTS and isinstance(value, str) else value
    return overrides


def parse_value(setting: str, text: str) -> Any:
    if text.startswith("(") and text.endswith(")"):
        text = f"[{text[1:-1]}]"
    is_plain_list = "," in text and text[0] not in "[{\"'"
    try:
        value = yaml.safe_load(f"[{text}]" if is_plain_list else text)
        return float(value) if isinstance(value, str) and EXPONENT.fullmatch(value) else value
    except yaml.YAMLError as error:
        raise ValueError(
            f"--set {setting}: {text!r} is no value; give a number, a word, true, null or [a, b]."
        ) from error


def parse_action_fields(names: str | None, units: str | None, gripper_dims: str | None) -> dict[str, list]:
    """The options that are given, as fields of the processor."""
    given = {"action_names": names, "action_units": units, "gripper_dims": gripper_dims}
    fields = {
        name: [part.strip() for part in text.split(",") if part.strip()]
        for name, text in given.items()
        if text is not None
    }
    dims = fields.get("gripper_dims", [])
    if not all(dim.isdecimal() for dim in dims):
        raise ValueError(f"--gripper-dims {gripper_dims} is no list of dimensions, such as 6,13.")
    return fields | ({"gripper_dims": [int(dim) for dim in dims]} if gripper_dims is not None else {})
