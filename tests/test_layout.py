"""Claims about folders, names and imports: what packaging, the Hub's remote code and `accelerate launch` rely on."""

import ast
import re
import sys
import tomllib
from collections import Counter
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from transformers.dynamic_module_utils import get_relative_imports

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
IMPORT_NAMES = {
    "modeling_instructvla": "instructvla",
    "processing": "instructvla.processing",
    "training": "instructvla.training",
    "evaluation": "instructvla.evaluation",
}
MODULES = sorted(path for folder in IMPORT_NAMES for path in (ROOT / folder).rglob("*.py"))
HUB_ROOTS = [
    "modeling_instructvla/configuration_instructvla.py",
    "modeling_instructvla/modeling_instructvla.py",
    "processing/processing_instructvla.py",
]


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def relative_imports(path: Path) -> list[ast.ImportFrom]:
    return [node for node in ast.walk(parse(path)) if isinstance(node, ast.ImportFrom) and node.level]


def absolute_imports(path: Path) -> list[str]:
    """Dotted names imported outside any `try:`, in functions too."""
    tree = parse(path)
    tried = {id(node) for block in ast.walk(tree) if isinstance(block, ast.Try) for node in ast.walk(block)}
    names = []
    for node in ast.walk(tree):
        if id(node) not in tried and isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif id(node) not in tried and isinstance(node, ast.ImportFrom) and not node.level:
            names.append(node.module)
    return names


def hub_files() -> list[Path]:
    """What is uploaded beside the weights: the three Auto modules and every sibling that they reach."""
    found, waiting = set(), [ROOT / name for name in HUB_ROOTS]
    while waiting:
        path = waiting.pop()
        found.add(path)
        siblings = {path.with_name(f"{node.module}.py") for node in relative_imports(path)}
        waiting += siblings - found
    return sorted(found)


def every_hub_file(test):
    return pytest.mark.parametrize("path", hub_files(), ids=name_of)(test)


def test_the_packages_in_pyproject_are_the_folders_that_hold_modules():
    folders = {name_of(path.parent) for path in MODULES}
    import_names = {folder: ".".join([IMPORT_NAMES[(p := folder.split("/"))[0]], *p[1:]]) for folder in folders}
    tool = PROJECT["tool"]["setuptools"]
    assert sorted(tool["packages"]) == sorted(import_names.values())
    assert tool["package-dir"] == {name: folder for folder, name in import_names.items()}
    assert all((ROOT / folder / "__init__.py").is_file() for folder in folders)


def test_package_data_exists():
    tool = PROJECT["tool"]["setuptools"]
    for package, patterns in tool["package-data"].items():
        for pattern in patterns:
            assert list((ROOT / tool["package-dir"][package]).glob(pattern)), f"{package}: {pattern}"


def test_the_model_card_inside_the_package_is_the_one_at_the_root():
    inside = ROOT / "modeling_instructvla" / "model_card.md"
    assert inside.read_bytes() == (ROOT / "model_card.md").read_bytes()


def test_basenames_are_unique_where_the_hub_puts_files_side_by_side():
    flat = [path.name for path in MODULES if path.parent.name in ("modeling_instructvla", "processing")]
    repeated = [name for name, count in Counter(flat).items() if count > 1 and name != "__init__.py"]
    assert not repeated


def test_modeling_and_processing_are_flat():
    nested = [name_of(path) for path in MODULES if path.parent not in (ROOT / folder for folder in IMPORT_NAMES)]
    assert not [name for name in nested if name.startswith(("modeling_instructvla/", "processing/"))]


@every_hub_file
def test_hub_files_import_only_names_from_existing_siblings(path):
    for node in relative_imports(path):
        assert node.level == 1 and node.module, f"line {node.lineno}: only `from .sibling import name` works"
        assert "." not in node.module and path.with_name(f"{node.module}.py").is_file(), f"line {node.lineno}"


@every_hub_file
def test_what_the_hub_scan_finds_is_what_python_imports(path):
    """The scan is a regular expression: it would also take an import out of a docstring."""
    assert sorted(get_relative_imports(path)) == sorted({node.module for node in relative_imports(path)})


@every_hub_file
def test_hub_files_reach_neither_the_package_nor_an_optional_dependency(path):
    distributions = packages_distributions()
    core = {re.split(r"[<>=!~;\[ ]", line)[0].replace("-", "_").lower() for line in PROJECT["project"]["dependencies"]}
    for module in absolute_imports(path):
        top = module.split(".")[0]
        assert top != "instructvla", f"{module}: the package is not installed where this file runs"
        if top not in sys.stdlib_module_names:
            owners = {name.replace("-", "_").lower() for name in distributions.get(top, [])}
            assert owners & core, f"{module}: not a core dependency, so import it inside try:"


def test_no_module_hides_another_package_when_its_folder_comes_first_on_the_path():
    taken = sys.stdlib_module_names | packages_distributions().keys()
    scripts = [path.relative_to(ROOT).with_suffix("").parts for path in MODULES]
    own = {part for top, *rest in scripts if top in ("training", "evaluation") for part in rest}
    assert not (own - {"__init__"}) & taken


def test_modules_stay_under_500_lines():
    lines = {name_of(path): len(path.read_text(encoding="utf-8").splitlines()) for path in MODULES}
    assert not {name: count for name, count in lines.items() if count >= 500}


def test_every_module_has_its_test_file():
    modules = [path for path in MODULES if path.name != "__init__.py"]
    assert not [name_of(path) for path in modules if not (ROOT / "tests" / f"test_{path.name}").is_file()]
