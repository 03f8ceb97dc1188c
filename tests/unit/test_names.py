"""Guards of names, sizes of rooms and modules, and import circles."""

import ast
from collections import Counter, defaultdict
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
MAY_REPEAT = {"KIND", "app", "from_json", "main", "run", "to_json"}
"""Public names that mean the same in every module that has one: the object of an entry point, a Typer app, JSON both ways."""
MOST_MODULES = 14
MOST_LINES = 400
MOST_FUNCTION_LINES = 60


def list_modules() -> Iterator[Path]:
    """Return the modules of the package, those of the command line included."""
    for folder in ("stair_es", "cli"):
        yield from (path for path in sorted((ROOT / folder).rglob("*.py")) if not any(part.is_symlink() for part in path.parents))


@cache
def read_module(path: Path) -> ast.Module:
    """Return the syntax tree of a module."""
    return ast.parse(path.read_text(encoding="utf-8"))


def get_module_name(path: Path) -> str:
    """Return the name under which a module is imported."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    parts = parts[:-1] if parts[-1] == "__init__" else parts
    return ".".join(parts if parts[0] == "stair_es" else ("stair_es", *parts))


def list_imports(path: Path, known_modules: set[str]) -> set[str]:
    """Return the modules of the package that a module imports at any depth, those for type checkers left out."""
    tree = read_module(path)
    typing_only = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        for inner in ast.walk(node)
    }
    package = get_module_name(path).split(".")
    package = package if path.name == "__init__.py" else package[:-1]
    found: set[str] = set()
    for node in ast.walk(tree):
        if id(node) in typing_only:
            continue
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            found.update({module, *(f"{module}.{alias.name}" for alias in node.names)})
    return found & known_modules - {get_module_name(path)}


def test_public_names_mean_one_thing() -> None:
    modules_by_name = defaultdict(list)
    for path in list_modules():
        for node in read_module(path).body:
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)) and not node.name.startswith("_"):
                modules_by_name[node.name].append(path.relative_to(ROOT).as_posix())
    assert not {name: paths for name, paths in modules_by_name.items() if len(paths) > 1 and name not in MAY_REPEAT}


def test_module_counts_and_sizes() -> None:
    rooms = Counter(path.parent.relative_to(ROOT).as_posix() for path in list_modules() if path.name != "__init__.py")
    assert not {room: count for room, count in rooms.items() if count > MOST_MODULES}
    lines = {path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8").count("\n") for path in list_modules()}
    assert not {path: count for path, count in lines.items() if count > MOST_LINES}


def test_functions_stay_short() -> None:
    long = {
        f"{path.relative_to(ROOT)}:{node.name}": node.end_lineno - node.lineno + 1
        for path in list_modules()
        for node in ast.walk(read_module(path))
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and node.end_lineno
    }
    assert not {name: count for name, count in long.items() if count > MOST_FUNCTION_LINES}


def test_imports_have_no_circle() -> None:
    modules = {get_module_name(path): path for path in list_modules() if path.name != "__init__.py"}
    imports = {name: list_imports(path, set(modules)) for name, path in modules.items()}
    while free := {name for name, used in imports.items() if not used & set(imports)}:
        for name in free:
            del imports[name]
    used_by_others = set().union(*imports.values())
    assert not {name for name in imports if name in used_by_others}
