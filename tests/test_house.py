"""What the house promises of its own code, checked by programs."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
MODULES = sorted([*ROOT.glob("collectors/**/*.py"), *ROOT.glob("detector/**/*.py")])
TABLES = {"streams.py"}
BIN = Path(sys.executable).parent


def run(*command):
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_style_guide_is_kept():
    run(BIN / "ruff", "check", "-q", ".")
    run(BIN / "ruff", "format", "--check", "-q", ".")


def test_types_hold():
    run(BIN / "mypy", "--no-error-summary", "--cache-dir=/tmp/poolwatch-mypy")


def test_nobody_knows_whom_he_should_not():
    run(BIN / "lint-imports", "--no-cache")


def test_reference_pages_are_fresh():
    run(sys.executable, "-m", "detector.reference", "--check")


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(ROOT)))
def test_rooms_are_small_and_named_for_what_is_in_them(path):
    text = path.read_text()
    assert path.stem not in {"utils", "helpers", "common", "core", "base", "manager", "types"}
    assert path.name in TABLES or len(text.splitlines()) <= 400
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef):
            decorators = {d.id for d in node.decorator_list if isinstance(d, ast.Name)}
            length = (node.end_lineno or 0) - node.lineno + 1
            assert length <= 60 or decorators & {"kernel", "inline"}, f"{node.name}: {length} lines"


def test_only_one_module_imports_each_heavy_library():
    importers = {}
    for path in MODULES:
        for library in re.findall(
            r"^\s*(?:import|from) (numba|pyarrow|scapy|kafka)\b", path.read_text(), re.M
        ):
            importers.setdefault(library, set()).add(path.name)
    assert all(len(names) == 1 for names in importers.values()), importers
