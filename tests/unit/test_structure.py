"""Doors, directions and names of docs/structure.md, read off the syntax trees."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Module:
    """A source file of the product: its dotted name, its path below the repository, its tree."""

    name: str
    path: str
    tree: ast.Module

    def imports(self, *, for_types: bool = True) -> Iterator[str]:
        """Dotted names that it imports, wherever in the file; relative ones resolved.

        `for_types` False leaves out what is imported for annotations alone and never at run time.
        """
        package = self.name if self.path.endswith("__init__.py") else self.name.rpartition(".")[0]
        blocks = [n for n in ast.walk(self.tree) if isinstance(n, ast.If) and ast.unparse(n.test) == "TYPE_CHECKING"]
        unused = {id(node) for block in blocks for node in block.body} if not for_types else set()
        for node in ast.walk(self.tree):
            if id(node) in unused:
                continue
            if isinstance(node, ast.Import):
                yield from (alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                base = node.module or ""
                if node.level:
                    above = package.split(".")[: len(package.split(".")) - node.level + 1]
                    base = ".".join([*above, *([node.module] if node.module else [])])
                yield base
                yield from (f"{base}.{alias.name}" for alias in node.names)


def read(path: Path) -> Module:
    relative = path.relative_to(ROOT)
    name = ".".join(relative.with_suffix("").parts).removesuffix(".__init__")
    return Module(name, relative.as_posix(), ast.parse(path.read_text(encoding="utf-8")))


MODULES = [read(path) for room in ("cloudtrain", "job") for path in sorted((ROOT / room).rglob("*.py"))]
PACKAGE = [module for module in MODULES if module.name.startswith("cloudtrain")]


def inside(name: str, *rooms: str) -> bool:
    return any(name == room or name.startswith(room + ".") for room in rooms)


def found(problems: list[str]) -> str:
    return "\n".join(problems)


# One library, one door: library -> the modules that may import it (a trailing * takes names that begin so).
DOORS = {
    "typer": ["cloudtrain.cli"],
    "click": ["cloudtrain.cli"],
    "rich": ["cloudtrain.console"],
    "sqlite3": ["cloudtrain.store"],
    "paramiko": ["cloudtrain.transport.ssh*"],
    "boto3": ["cloudtrain.provider.ec2"],
    "botocore": ["cloudtrain.provider.ec2"],
    "torch": ["job", "cloudtrain.report.exports.program"],
    "torchvision": ["job"],
    "safetensors": ["job", "cloudtrain.report.exports.program", "cloudtrain.report.notebook"],
    "onnx": ["cloudtrain.report.exports.program"],
    "tensorboard": ["cloudtrain.report.exports"],
    "moto": ["cloudtrain.emulator"],
    "asyncssh": ["cloudtrain.emulator"],
    "werkzeug": ["cloudtrain.emulator"],
    "jinja2": ["cloudtrain.report"],
}


def test_each_library_has_one_door() -> None:
    problems = []
    for module in MODULES:
        for library in {name.split(".")[0] for name in module.imports()} & set(DOORS):
            doors = DOORS[library]
            through = any(
                module.name.startswith(door[:-1]) if door.endswith("*") else inside(module.name, door) for door in doors
            )
            if not through:
                problems.append(f"{module.path} imports {library}: its door is {', '.join(doors)}")
    assert not problems, found(problems)


# Rooms -> what they must not import. The values (spec, states, events, errors, disk) know only each other.
VALUES = [
    "cloudtrain.core.errors",
    "cloudtrain.core.states",
    "cloudtrain.core.events",
    "cloudtrain.core.spec",
    "cloudtrain.core.disk",
]
FORBIDDEN = {
    "job": ["cloudtrain"],
    "cloudtrain": ["job", "scripts", "tests"],
    "cloudtrain.transport": [
        "cloudtrain.provider",
        "cloudtrain.lifecycle.story",
        "cloudtrain.store",
        "cloudtrain.console",
    ],
    "cloudtrain.provider": ["cloudtrain.lifecycle.story", "cloudtrain.store", "cloudtrain.console"],
    "cloudtrain.console": [
        "cloudtrain.lifecycle.story",
        "cloudtrain.store",
        "cloudtrain.provider",
        "cloudtrain.transport",
    ],
    "cloudtrain.store": ["cloudtrain.lifecycle.story", "cloudtrain.console", "cloudtrain.transport"],
    "cloudtrain.lifecycle.story": ["cloudtrain.console", "cloudtrain.lifecycle.watch"],
    "cloudtrain.lifecycle.watch": ["cloudtrain.console"],
    "cloudtrain.transfer.push": ["cloudtrain.lifecycle.story", "cloudtrain.console", "cloudtrain.store"],
    "cloudtrain.transfer.follow": ["cloudtrain.lifecycle.story", "cloudtrain.console"],
    "cloudtrain.transfer.pull": ["cloudtrain.lifecycle.story", "cloudtrain.console"],
    "cloudtrain.transfer.download": ["cloudtrain.transfer.pull", "cloudtrain.transfer.supervisor"],
    "cloudtrain.transfer.frames": ["cloudtrain.transfer.supervisor", "cloudtrain.transport"],
}


def test_imports_go_one_way() -> None:
    problems = []
    for module in MODULES:
        for name in set(module.imports(for_types=False)):
            for room, closed in FORBIDDEN.items():
                if inside(module.name, room) and inside(name, *closed):
                    problems.append(f"{module.path} imports {name}")
            cli_is_its_own = inside(module.name, "cloudtrain.cli", "cloudtrain.__main__")
            if inside(name, "cloudtrain.cli") and not cli_is_its_own:
                problems.append(f"{module.path} imports {name}: nothing imports the command line")
            if module.name in VALUES and inside(name, "cloudtrain") and not inside(name, *VALUES):
                problems.append(f"{module.path} imports {name}: values know only each other")
    assert not problems, found(problems)


def test_the_supervisor_runs_on_any_host() -> None:
    source = (ROOT / "cloudtrain" / "onhost" / "supervise.py").read_text(encoding="utf-8")
    tree = ast.parse(source, feature_version=(3, 8))
    imported = {name.split(".")[0] for name in Module("supervise", "supervise.py", tree).imports()}
    assert imported <= sys.stdlib_module_names


# Path -> why it may be longer than 400 lines.
LONG = {
    "cloudtrain/onhost/supervise.py": "is sent to the host as one file",
}


def test_files_have_one_subject() -> None:
    problems = []
    for module in MODULES:
        lines = len((ROOT / module.path).read_text(encoding="utf-8").splitlines())
        if lines > 400 and module.path not in LONG:
            problems.append(f"{module.path} has {lines} lines")
    assert not problems, found(problems)
    assert all((ROOT / path).exists() for path in LONG)


# Path -> why its functions need no docstring each.
UNDOCUMENTED = {
    "cloudtrain/onhost/supervise.py": "a program and no library: its interface is the verbs of docs/structure.md",
}


def undocumented(node: ast.Module | ast.ClassDef, where: str) -> Iterator[str]:
    """Public classes and functions below `node` without a docstring. Overrides repeat their base's contract."""
    for child in node.body:
        if not isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)) or child.name.startswith("_"):
            continue
        is_method = isinstance(node, ast.ClassDef)
        if ast.get_docstring(child) is None and not (is_method and node.bases and not isinstance(child, ast.ClassDef)):
            yield f"{where}: {child.name} has no docstring"
        if isinstance(child, ast.ClassDef):
            yield from undocumented(child, where)


def test_what_is_public_is_documented() -> None:
    problems = []
    for module in MODULES:
        if module.tree.body and ast.get_docstring(module.tree) is None:
            problems.append(f"{module.path} has no docstring")
        if module in PACKAGE and module.path not in UNDOCUMENTED:
            problems += undocumented(module.tree, module.path)
    assert not problems, found(problems)


# Who may print: programs whose output is the product (a room, or a file).
PRINTING = ("cloudtrain/console/", "cloudtrain/onhost/", "cloudtrain/emulator/__main__.py", "cloudtrain/__main__.py")


def test_only_the_console_prints() -> None:
    problems = []
    for module in PACKAGE:
        if module.path.startswith(PRINTING):
            continue
        for node in ast.walk(module.tree):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print":
                problems.append(f"{module.path}:{node.lineno} prints")
    assert not problems, found(problems)


# (path, name) -> why it is used although its word is not.
FOREIGN_NAMES = {
    ("cloudtrain/emulator/region.py", "handler"): "the web server's own word for the class that it is given",
}
UNUSED_WORDS = re.compile(r"(?<![a-z])(manager|helper|util|utils|handler|engine|master|slave)s?(?![a-z])")


def defined(module: Module) -> Iterator[tuple[int, str]]:
    """Names that a module brings into the world: itself, its classes, functions, arguments and variables."""
    yield 1, module.name
    for node in ast.walk(module.tree):
        if isinstance(node, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            yield node.lineno, node.name
        elif isinstance(node, ast.arg):
            yield node.lineno, node.arg
        elif isinstance(node, (ast.Name, ast.Attribute)) and isinstance(node.ctx, ast.Store):
            yield node.lineno, node.id if isinstance(node, ast.Name) else node.attr


def test_names_say_what_a_thing_is() -> None:
    problems = []
    for module in MODULES:
        for line, name in defined(module):
            words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower().replace("_", " ").replace(".", " ")
            if UNUSED_WORDS.search(words) and (module.path, name) not in FOREIGN_NAMES:
                problems.append(f"{module.path}:{line} {name}")
    assert not problems, found(problems)


@pytest.mark.parametrize(
    ("name", "bad"), [("run_manager", True), ("LogHandler", True), ("utilisation", False), ("handle", False)]
)
def test_the_word_list_finds_words_not_letters(name: str, bad: bool) -> None:
    module = Module("cloudtrain.x", "cloudtrain/x.py", ast.parse(f"def {name}(): ..."))
    words = [re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", n).lower().replace("_", " ") for _, n in defined(module)]
    assert any(UNUSED_WORDS.search(word) for word in words) is bad
