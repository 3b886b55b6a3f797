"""Doors, directions and names of docs/structure.md, read off the syntax trees."""

from __future__ import annotations

import ast
import functools
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Module:
    """A source file of the product: its dotted name, its path below the repository, its tree (made of the file when it
    is first looked at: whoever collects tests needs none)."""

    name: str
    path: str
    made: ast.Module | None = field(default=None, compare=False)

    @functools.cached_property
    def tree(self) -> ast.Module:
        return self.made or ast.parse((ROOT / self.path).read_text(encoding="utf-8"))

    def imports(self) -> Iterator[str]:
        """Dotted names that it imports, wherever in the file and be it for types alone; a module by its own name."""
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Import):
                yield from (alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                above = self.name.split(".")[: -node.level] if node.level else []
                base = ".".join([*above, *([node.module] if node.module else [])])
                yield from (name if is_module(name := f"{base}.{alias.name}") else base for alias in node.names)


def is_module(name: str) -> bool:
    """Whether `name` is a module or package of this repository."""
    path = ROOT.joinpath(*name.split("."))
    return path.is_dir() or path.with_suffix(".py").is_file()


def read(path: Path) -> Module:
    relative = path.relative_to(ROOT)
    name = ".".join(relative.with_suffix("").parts).removesuffix(".__init__")
    return Module(name, relative.as_posix())


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
    "torch": ["job"],
    "torchvision": [],  # serves scripts/bench_training.py alone
    "safetensors": ["job", "cloudtrain.report.notebook"],
    "tensorboard": ["cloudtrain.report.export", "cloudtrain.run_folder.event_files"],
    "regex": ["cloudtrain.core.figures"],
    "moto": ["cloudtrain.emulator"],
    "asyncssh": ["cloudtrain.emulator"],
    "werkzeug": ["cloudtrain.emulator"],
    "jinja2": ["cloudtrain.report"],
    "uv": ["cloudtrain.environment"],
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


# From the top down (docs/structure.md): a module may import its own room and those below it, be it for types alone.
LAYERS = (
    "cloudtrain.__main__",
    "cloudtrain.cli",
    "cloudtrain",  # `cloudtrain.load`
    "cloudtrain.console",
    "cloudtrain.report",
    "cloudtrain.cleanup",
    "cloudtrain.lifecycle",
    "cloudtrain.provider",
    "cloudtrain.environment",
    "cloudtrain.transfer",
    "cloudtrain.run_folder",
    "cloudtrain.billing",
    "cloudtrain.store",
    "cloudtrain.source",
    "cloudtrain.config",
    "cloudtrain.transport",
    "cloudtrain.emulator",
    "cloudtrain.core",
)
ALONE = ("cloudtrain.onhost", "job")  # programs that are sent to hosts: they import nothing here, nothing imports them
MOST_AT_THE_TOP = 20


def layer(name: str) -> str | None:
    """The room of LAYERS that a module or a name in it belongs to; None: it is none of ours."""
    room = ".".join(name.split(".")[:2])
    return room if room in LAYERS else "cloudtrain" if inside(name, "cloudtrain") else None


def test_imports_go_one_way() -> None:
    problems = []
    for module in MODULES:
        for name in set(module.imports()):
            if inside(module.name, *ALONE):
                own = next(room for room in ALONE if inside(module.name, room))
                wrong = inside(name, "cloudtrain", "job", "scripts", "tests") and not inside(name, own)
            elif inside(name, "job", "scripts", "tests", *ALONE):
                wrong = True
            else:
                above, below = layer(module.name), layer(name)
                wrong = below is not None and LAYERS.index(str(above)) > LAYERS.index(below)
            if wrong:
                problems.append(f"{module.path} imports {name}")
    assert not problems, found(problems)


def test_every_room_has_its_layer() -> None:
    rooms = {".".join(module.name.split(".")[:2]) for module in PACKAGE}
    assert rooms == {*LAYERS, *ALONE} - {"job"}
    assert len(rooms) <= MOST_AT_THE_TOP


def test_there_are_no_cycles() -> None:
    """Not even of imports for types, or inside functions."""
    edges = {module.name: set(module.imports()) - {module.name} for module in MODULES}
    while free := [name for name, needed in edges.items() if not needed & set(edges)]:
        edges = {name: needed for name, needed in edges.items() if name not in free}
    while unused := set(edges) - set().union(*edges.values()):
        edges = {name: needed for name, needed in edges.items() if name not in unused}
    assert not edges, found([f"{name} -> {sorted(needed & set(edges))}" for name, needed in edges.items()])


def test_the_supervisor_runs_on_any_host() -> None:
    problems = []
    for path in sorted((ROOT / "cloudtrain" / "onhost").glob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"), feature_version=(3, 8))
        # As it is called there: imports among themselves are relative.
        for name in Module(f"onhost.{path.stem}", f"onhost/{path.name}", tree).imports():
            if name.split(".")[0] not in {*sys.stdlib_module_names, "onhost"}:
                problems.append(f"{path.name} imports {name}")
    assert not problems, found(problems)


# Path -> why it may be longer than 400 lines.
LONG: dict[str, str] = {}


def test_files_have_one_subject() -> None:
    problems = []
    for module in MODULES:
        lines = len((ROOT / module.path).read_text(encoding="utf-8").splitlines())
        if lines > 400 and module.path not in LONG:
            problems.append(f"{module.path} has {lines} lines")
    assert not problems, found(problems)
    assert all((ROOT / path).exists() for path in LONG)


# Room -> why its functions need no docstring each.
UNDOCUMENTED = {
    "cloudtrain.onhost": "a program and no library: its interface is the verbs of docs/protocol.md",
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
        if module in PACKAGE and not inside(module.name, *UNDOCUMENTED):
            problems += undocumented(module.tree, module.path)
    assert not problems, found(problems)


# Who may print: programs whose output is the product (a room, or a file).
PRINTING = ("cloudtrain/console/", "cloudtrain/onhost/", "cloudtrain/emulator/__main__.py", "cloudtrain/__main__.py")


PRINTS = ("print", "sys.stdout.write", "sys.stderr.write", "typer.echo", "typer.secho")


def test_only_the_console_prints() -> None:
    problems = []
    for module in PACKAGE:
        if module.path.startswith(PRINTING):
            continue
        for node in ast.walk(module.tree):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in PRINTS:
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
