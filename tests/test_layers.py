"""The house rules of the layers, read from the source: arrows point down, and torch lives in one layer only."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "workbench"

LAYERS = {
    0: {"errors", "_knobs", "config", "request", "plan", "events", "draft_choice"},
    1: {"blocks", "prefix", "kv", "radix", "kv_radix", "state", "queues", "batching", "draft", "scheduler", "adjust", "randomness"}
    | {"policies", "speculative"},
    2: {"trace", "table", "_tracefile", "_perfetto", "metrics", "outputs", "conformance", "limits", "sizing", "render"}
    | {"rebuild", "_search", "asking", "explain", "lives", "prefix_story", "counterfactual"}
    | {"findings", "moment", "comparison", "definitions"}
    | {"tape", "plots", "view"},
    3: {"runners", "models", "tokenizer", "detokenize", "sampler", "shaping", "truncation"},
    4: {"engine", "assembly", "timeline", "history", "undo", "clock", "run", "run_life", "steppable", "result", "whatif", "memory"}
    | {"mailbox", "interrupts", "intake", "texts", "streaming"},
    5: {"magics", "cli", "doctor", "prompts", "_session", "_options", "_docs", "_listing", "_completion", "__main__"},
}
LAYER_OF = {room: layer for layer, rooms in LAYERS.items() for room in rooms}
# The widget's own file is loaded when the first view is made, by whoever makes it.
OUTSIDE = {"widget.py": {"anywidget", "traitlets"}}
HEAVY = {"torch", "numpy", "transformers", "tokenizers", "safetensors", "huggingface_hub", "gguf", "pandas", "pyarrow", "IPython", "rich"}
HEAVY |= {"anywidget", "ipywidgets", "plotly"}


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(path: Path) -> list[tuple[str, bool]]:
    """Every module that a file imports, and whether it does so when it is itself imported."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    checking = {id(node) for block in ast.walk(tree) if _is_type_checking(block) for node in ast.walk(block)}
    late = {id(node) for f in ast.walk(tree) if isinstance(f, ast.FunctionDef | ast.AsyncFunctionDef) for node in ast.walk(f)}
    found = []
    for node in ast.walk(tree):
        eager = id(node) not in late and id(node) not in checking
        if isinstance(node, ast.Import):
            found += [(alias.name, eager) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name} uses a relative import"
            assert node.module is not None
            names = [f"workbench.{alias.name}" for alias in node.names] if node.module == "workbench" else [node.module]
            found += [(name, eager) for name in names]
    return found


def _is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


FILES = sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_every_file_belongs_to_a_layer_and_its_arrows_point_down(path):
    room = room_of(path)
    assert room in LAYER_OF, f"give {room} a layer in this table"
    for name, _ in imports(path):
        if not name.startswith("workbench.") or name == "workbench.__version__":
            continue
        target = name.split(".")[1]
        if target in LAYER_OF:  # else a name of the package root, which loads what it needs
            assert LAYER_OF[target] <= LAYER_OF[room], f"{room} (L{LAYER_OF[room]}) imports {target} (L{LAYER_OF[target]})"


@pytest.mark.parametrize("path", [path for path in FILES if LAYER_OF.get(room_of(path), 9) <= 2], ids=lambda path: path.stem)
def test_the_lower_layers_load_nothing_but_the_standard_library_and_msgspec(path):
    for name, eager in imports(path):
        top = name.split(".")[0]
        if eager:
            allowed = {"msgspec", "workbench"} | OUTSIDE.get(path.name, set())
            assert top in sys.stdlib_module_names or top in allowed, f"{path.name} imports {name}"
        assert top not in ("torch", "transformers"), f"{path.name} imports {name}"


@pytest.mark.parametrize("path", [path for path in FILES if LAYER_OF.get(room_of(path), 0) >= 4], ids=lambda path: path.stem)
def test_torch_is_loaded_only_by_the_execution_layer(path):
    assert not [name for name, eager in imports(path) if eager and name.split(".")[0] in ("torch", "transformers")]


def loaded_by(code: str) -> set[str]:
    script = f"{code}\nimport sys\nprint('\\n'.join(sorted({{name.split('.')[0] for name in sys.modules}})))"
    return set(subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.split())


def test_importing_the_package_loads_nothing_heavy():
    assert not loaded_by("import workbench") & HEAVY


def test_opening_a_trace_needs_no_torch():
    assert not loaded_by("from workbench import EngineConfig, SamplingParams, Trace, load_trace") & {"torch", "transformers", "numpy"}


def test_loading_the_magics_needs_no_torch():
    assert not loaded_by("from workbench import load_ipython_extension") & {"torch", "transformers"}


def test_the_command_line_starts_without_torch():
    assert not loaded_by("import workbench.cli") & {"torch", "transformers"}
