"""A file imports only from what stands before it; importing onca loads nothing that torch does not load."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).parent.parent / "src" / "onca"

# The order of docs/design.md. A name with a slash is a package, whose files may import each other.
LAYERS = (
    *("part", "schedule", "engine/", "sliced", "search", "neighbours", "mix", "listed", "link", "predicate", "ranking"),
    *("shared", "sums", "reduced", "counted", "bag", "pool", "difficulty", "selector", "select", "identity", "rules"),
    *("objectives", "method", "methods/", "memory", "lasting", "bank", "drop_in", "explain", "encoders/", "views/"),
    *("data/", "hosts/", "ledger/", "evaluate/", "train/", "analyse/", "audit/", "study/", "report/"),
    *("cli_data", "cli_analyse", "cli_audit", "cli_explore", "cli_train", "cli", "__main__"),
)


def layer(path: Path) -> str:
    inside = path.relative_to(SOURCE)
    return inside.stem if len(inside.parts) == 1 else inside.parts[0] + "/"


def imported(path: Path) -> set[str]:
    """The layers that a file imports at run time, anywhere in it."""
    found = set()
    tree = ast.parse(path.read_text(encoding="utf-8"))
    typing_only = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        names = []
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "onca":
            names = [node.module] if node.module != "onca" else [f"onca.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names if alias.name.split(".")[0] == "onca"]
        if id(node) not in typing_only:
            found |= {parts[1] for parts in (name.split(".") for name in names) if len(parts) > 1}
    return {name if name in LAYERS else name + "/" for name in found}


FILES = [path for path in sorted(SOURCE.rglob("*.py")) if path != SOURCE / "__init__.py"]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_a_file_imports_only_from_what_stands_before_it(path: Path) -> None:
    own = layer(path)
    assert own in LAYERS, f"{own} has no place in the order"
    for other in imported(path) - {own}:
        assert other in LAYERS, f"{other} has no place in the order"
        assert LAYERS.index(other) < LAYERS.index(own), f"{own} imports {other}"


def test_the_check_itself_sees_an_import_of_a_later_layer(tmp_path: Path) -> None:
    planted = tmp_path / "bag.py"
    planted.write_text("def f():\n    from onca import hosts\n    import onca.train.loop\n", encoding="utf-8")
    assert imported(planted) == {"hosts/", "train/"}


@pytest.mark.parametrize("package", ["hosts", "encoders", "views"])
def test_hosts_know_no_method_and_nothing_below_knows_training(package: str) -> None:
    for path in (SOURCE / package).rglob("*.py"):
        assert not imported(path) & {"method", "methods/", "train/", "study/"}, path


def test_methods_know_no_memory_and_no_host() -> None:
    for path in (SOURCE / "methods").rglob("*.py"):
        assert not imported(path) & {"memory", "bank", "lasting", "drop_in", "hosts/"}, path


def test_importing_onca_loads_nothing_that_torch_does_not() -> None:
    program = (
        "import sys, torch; before = set(sys.modules); import onca; "
        "print(sorted(m for m in set(sys.modules) - before if m.split('.')[0] != 'onca'))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
