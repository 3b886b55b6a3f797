"""The table of error codes: every code that can be shown is in it and nothing else, and every error is complete."""

from __future__ import annotations

import ast
import functools
import importlib.util
import inspect
import itertools
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from cloudtrain.console.pages import failure
from cloudtrain.core import errors
from cloudtrain.core.error_codes import CODES, CONSEQUENCES, HINTS, JOB
from cloudtrain.core.errors import CloudtrainError, ExitCode
from tests.unit.test_structure import MODULES, ROOT, Module

CLASSES = {name: kind for name, kind in vars(errors).items() if inspect.isclass(kind) and issubclass(kind, Exception)}
CONSTANTS = {name: value for name, value in vars(errors).items() if isinstance(value, str) and name.isupper()}

# (path, code) -> why nobody ever sees it.
UNSEEN = {
    (
        "cloudtrain/lifecycle/background_pull.py",
        "ended",
    ): "ends a transfer beside the story that nobody waits for any more",
    ("cloudtrain/cli/following.py", "unexpected"): "no answer in a moment: a part of its caller's warning",
}
# Path, or how those of a room begin -> why its `{"code": ..., "message": ...}` are no errors of a command.
FOREIGN = {
    "cloudtrain/onhost/": "speaks on the host; supervisor.py turns its codes into ours",
}


# Exit codes that the kind of an error does not tell: those of ends of runs (`run_folder/outcome.py`,
# `exit_code`), and where the kind is chosen at run time.
ALSO = {
    "not_pulled": {130},
    "abandoned": {130},
    "cleaned": {130},
    "limit_reached": {7},
    "machine_ended": {7},
    "release_pending": {4, 6},
    "spot_reclaimed": {7},
    "stopped": {130},
    "training_failed": {3},
}


@dataclass(frozen=True)
class Found:
    """A code where the source makes an error.

    Attributes:
        exits: exit codes of its kind; none: the kind is not known there.
        says: "hint" and "consequence" where the error has its own in every case.
    """

    code: str
    where: str
    exits: frozenset[int]
    says: frozenset[str]


class Scope:
    """A function, to find out what a name in it may stand for."""

    def __init__(self, module: Module, functions: list[ast.FunctionDef]) -> None:
        self.module, self.function = module, functions[-1] if functions else None

    def values(self, node: ast.expr, near: ast.AST) -> set[str] | None:
        """The strings that `node` may be, without what is passed on from another error; None: it cannot be told."""
        match node:
            case ast.Constant(value=str(text)):
                return {text}
            case ast.Constant(value=None):
                return set()
            case ast.Attribute(attr="code"):
                return set()
            case ast.IfExp(test=ast.Compare(comparators=[ast.Constant(value=str(text))]), body=ast.Name()):
                other = self.values(node.orelse, near)
                return None if other is None else {text} | other
            case ast.IfExp():
                both = [self.values(part, near) for part in (node.body, node.orelse)]
                return None if None in both else set().union(*(part or set() for part in both))
            case ast.Name(id=name) if name in CONSTANTS:
                return {CONSTANTS[name]}
            case ast.Name(id=name) if self.function is not None:
                return self._matched(name, near) or self._unpacked(name) or self._argument(name) or self._assigned(name)
        return None

    def _matched(self, name: str, near: ast.AST) -> set[str] | None:
        """`match NAME: case "a" | "b": ... NAME`."""
        for node in ast.walk(self.function):
            if isinstance(node, ast.Match) and isinstance(node.subject, ast.Name) and node.subject.id == name:
                for case in node.cases:
                    if any(part is near for part in ast.walk(case)):
                        return {p.value.value for p in ast.walk(case.pattern) if isinstance(p, ast.MatchValue)}
        return None

    def _unpacked(self, name: str) -> set[str] | None:
        """`for a, NAME in rows` and `a, NAME = {...}.get(...)`, over tuples that are written out."""
        for node in ast.walk(self.function):
            if isinstance(node, ast.For | ast.Assign):
                target = node.target if isinstance(node, ast.For) else node.targets[0]
                names = [part.id for part in target.elts if isinstance(part, ast.Name)] if _is_tuple(target) else []
                if name in names:
                    source = node.iter if isinstance(node, ast.For) else node.value
                    rows = [t for t in ast.walk(self._literal(source)) if _is_tuple(t) and len(t.elts) == len(names)]
                    column = [row.elts[names.index(name)] for row in rows]
                    return {cell.value for cell in column if isinstance(cell, ast.Constant)} or None
        return None

    def _literal(self, node: ast.expr) -> ast.expr:
        if isinstance(node, ast.Name):
            for made in (*ast.walk(self.function), *self.module.tree.body):
                if isinstance(made, ast.Assign | ast.AnnAssign):
                    target = made.target if isinstance(made, ast.AnnAssign) else made.targets[0]
                    if isinstance(target, ast.Name) and target.id == node.id and made.value is not None:
                        return made.value
        return node

    def _argument(self, name: str) -> set[str] | None:
        """An argument of this function: its default, and what the callers in this file give."""
        function = self.function
        assert function is not None
        places = [*function.args.posonlyargs, *function.args.args]
        names = [place.arg for place in places]
        if name not in names:
            return None
        found: set[str] = set()
        defaults = dict(zip(names[::-1], function.args.defaults[::-1], strict=False))
        for given in [defaults.get(name), *_given(self.module.tree, function.name, names.index(name), name)]:
            match given:
                case ast.Constant(value=str(text)):
                    found.add(text)
                case ast.Name(id=known) if known in CONSTANTS:
                    found.add(CONSTANTS[known])
                case None | ast.Attribute(attr="code"):
                    pass
                case _:
                    return None
        return found

    def _assigned(self, name: str) -> set[str] | None:
        for node in ast.walk(self.function):
            if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and node.targets[0].id == name:
                return self.values(node.value, node)
        return None


def _is_tuple(node: ast.AST) -> bool:
    return isinstance(node, ast.Tuple)


def _given(tree: ast.Module, function: str, place: int, name: str) -> Iterator[ast.expr | None]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == function:
            named = [keyword.value for keyword in node.keywords if keyword.arg == name]
            yield named[0] if named else node.args[place] if place < len(node.args) else None


def made(module: Module) -> Iterator[Found | str]:
    """Every code that a file makes an error with; a text where one cannot be told from the source."""

    def visit(node: ast.AST, functions: list[ast.FunctionDef]) -> Iterator[Found | str]:
        inner = [*functions, node] if isinstance(node, ast.FunctionDef) else functions
        where = f"{module.path}:{getattr(node, 'lineno', 0)}"
        code, exits, given = None, frozenset[int](), _keywords(node)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in CLASSES:
            kind = CLASSES[node.func.id]
            exits = frozenset({int(kind.exit_code)})
            code = given.get("code")
            if code is None and None not in given:
                yield Found(kind.code, where, exits, _said(given))
        elif isinstance(node, ast.Call) and ast.unparse(node.func) == "RunError":
            # What a run has ended with.
            code = given["code"]
        elif isinstance(node, ast.Call) and {"code", "consequence"} <= set(given):
            # A kind that is chosen at run time.
            code = given["code"]
        elif isinstance(node, ast.Dict) and {"code", "message"} <= set(given):
            code = given["code"]
        if code is not None and not module.path.startswith(tuple(FOREIGN)):
            values = Scope(module, functions).values(code, node)
            if values is None:
                yield f"{where}: cannot tell what {ast.unparse(code)} may be"
            for value in values or ():
                yield Found(value, where, exits, _said(given))
        for child in ast.iter_child_nodes(node):
            yield from visit(child, inner)

    yield from visit(module.tree, [])


def _keywords(node: ast.AST) -> dict[str | None, ast.expr]:
    """What a call or a literal gives by name; by None what it takes from elsewhere (`**`)."""
    if isinstance(node, ast.Call):
        return {keyword.arg: keyword.value for keyword in node.keywords}
    if isinstance(node, ast.Dict):
        pairs = zip(node.keys, node.values, strict=True)
        return {key.value if _text(key) else None: value for key, value in pairs if key is None or _text(key)}
    return {}


def _said(given: dict[str | None, ast.expr]) -> frozenset[str]:
    return frozenset(name for name in ("hint", "consequence") if None in given or _always(given.get(name)))


def _always(node: ast.expr | None) -> bool:
    """Whether there is a text in every case. What is passed on in a variable has one."""
    match node:
        case None | ast.Constant(value=None):
            return False
        case ast.IfExp():
            return _always(node.body) and _always(node.orelse)
        case ast.BoolOp():
            return _always(node.values[-1])
    return True


def _text(node: ast.expr | None) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, str)


@functools.cache
def everywhere() -> list[Found | str]:
    """Of the whole product; it takes seconds, and every worker imports this file."""
    return [found for module in MODULES if module.name.startswith("cloudtrain.") for found in made(module)]


# The kinds that are raised only under other codes, and what is both.
BARE = {kind.code for kind in CLASSES.values()}


def shown() -> list[Found]:
    codes = [found for found in everywhere() if isinstance(found, Found)]
    return [found for found in codes if (found.where.partition(":")[0], found.code) not in UNSEEN]


def test_every_code_can_be_told_from_the_source() -> None:
    assert [found for found in everywhere() if isinstance(found, str)] == []
    assert len(shown()) > 200, "the collection lost its way"


def test_every_code_that_can_be_shown_is_in_the_table_and_nothing_else() -> None:
    missing = sorted({f"{found.code} ({found.where})" for found in shown() if found.code not in CODES})
    assert not missing, f"not in cloudtrain/core/error_codes.py: {missing}"
    nowhere = set(CODES) - {found.code for found in shown()} - BARE
    assert not nowhere, f"in cloudtrain/core/error_codes.py, and nothing shows them: {sorted(nowhere)}"
    assert set(CODES) >= BARE


def test_exit_codes_are_those_of_the_kinds() -> None:
    told: dict[str, set[int]] = {}
    for found in shown():
        told.setdefault(found.code, set()).update(found.exits)
    for kind in CLASSES.values():
        if not told.get(kind.code):
            told[kind.code] = {int(kind.exit_code)}
    for code, more in ALSO.items():
        told.setdefault(code, set()).update(more)
    assert {code: sorted(exits) for code, exits in told.items()} == {
        code: sorted(known.exits) for code, known in CODES.items()
    }


def test_every_text_is_one_line_without_a_full_stop() -> None:
    defaults = [kind.default_consequence for kind in CLASSES.values()]
    causes = [known.cause for known in CODES.values()]
    for text in (*causes, *HINTS.values(), *CONSEQUENCES.values(), *JOB.values(), *defaults):
        assert text and text == " ".join(text.split()) and not text.removesuffix("...").endswith("."), text
    for code, known in CODES.items():
        assert all(exit_code in set(ExitCode) - {ExitCode.DONE} for exit_code in known.exits) and known.exits, code


def test_the_table_says_what_to_do_for_each_error_that_does_not_and_for_no_other() -> None:
    assert {found.code for found in shown() if "hint" not in found.says} == set(HINTS)


def test_the_table_says_what_it_means_for_errors_alone_that_may_not() -> None:
    """All others have the default of their kind. translate.py may be told to say nothing."""
    silent = {found.code for found in shown() if "consequence" not in found.says or "/translate.py:" in found.where}
    assert set(CONSEQUENCES) <= silent


def test_the_codes_of_the_training_package_are_in_their_own_table() -> None:
    found = set()
    for path in (ROOT / "job").glob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "JobError":
                code = node.args[0]
                if isinstance(code, ast.Name):
                    assigned = [n for n in ast.walk(tree) if isinstance(n, ast.Assign)]
                    (made_by,) = [n for n in assigned if ast.unparse(n.targets[0]) == code.id]
                    code = made_by.value
                found |= {part.value for part in ast.walk(code) if _text(part)}
    assert found == set(JOB)


def test_an_error_that_says_no_more_than_what_happened_is_completed() -> None:
    for kind, code in [*itertools.product(CLASSES.values(), HINTS), *((kind, kind.code) for kind in CLASSES.values())]:
        bare, hint = kind("it happened", code=code), HINTS.get(code)
        means = CONSEQUENCES.get(code, kind.default_consequence)
        shown = f"hint:  {hint}   ({means})" if hint else f"hint:  {means}"
        assert failure.lines(bare) == [f"error: it happened [{code}]", shown]
        told = json.loads(json.dumps(failure.record(bare)))
        assert (told["code"], told["consequence"], told["hint"]) == (code, means, hint)
        own = kind("it happened", code=code, hint="do this", consequence="all is safe")
        assert failure.lines(own)[1] == "hint:  do this   (all is safe)"


def test_a_code_that_nobody_knows_does_no_harm() -> None:
    """As a registry of a later version may hold."""
    unknown = CloudtrainError("it happened", code="new")
    assert failure.lines(unknown) == ["error: it happened [new]", f"hint:  {CloudtrainError.default_consequence}"]


def pages() -> dict[Path, str]:
    """What scripts/contract_docs.py writes."""
    script = importlib.util.spec_from_file_location("contract_docs", ROOT / "scripts" / "contract_docs.py")
    assert script is not None and script.loader is not None
    module = importlib.util.module_from_spec(script)
    script.loader.exec_module(module)
    return module.pages()


def test_the_page_of_error_codes_is_current() -> None:
    page = ROOT / "docs" / "errors.md"
    assert page.read_text(encoding="utf-8") == pages()[page], "run: python scripts/contract_docs.py"
