"""The floors of the package, held by its own imports, and the length of its files."""

import ast
import functools
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "mcfa_fast"
LONGEST = 400

# From the ground up. A module imports from its own room and from rooms on lower floors; rooms of
# the same floor do not know each other. The first four need PyTorch and NumPy alone; the package's
# front (``mcfa_fast`` itself) is the roof.
FLOORS = (
    ("_extension", "_extras"),
    ("ops", "linear", "chunked"),
    ("distributed",),
    ("functional", "losses", "reference", "compat"),
    ("storage",),
    ("data",),
    ("evaluation",),
    ("encoders", "search", "training"),
    ("environment",),
    ("systems",),
    ("selection",),
    ("classifiers",),
    ("experiments", "export"),
    ("serving", "reporting"),
    ("cli",),
    ("__main__", "__init__"),
)
FLOOR = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}
GROUND = [room for rooms in FLOORS[:4] for room in rooms]


class Import(NamedTuple):
    """One module importing another; ``line`` says where."""

    importer: str
    imported: str
    line: int
    for_types_only: bool


def modules(package=PACKAGE):
    """The package's files by dotted name below it."""
    return {name_of(path, package): path for path in sorted(package.rglob("*.py"))}


def name_of(path, package):
    parts = path.relative_to(package).with_suffix("").parts
    return ".".join(parts[:-1] if len(parts) > 1 and parts[-1] == "__init__" else parts)


def room(module):
    return module.partition(".")[0]


class Imports(ast.NodeVisitor):
    """Collects the absolute names that a file imports, wherever in it."""

    def __init__(self):
        self.found = []  # (name, line, for types only)
        self._for_types_only = False

    def visit_If(self, node):
        condition = ast.unparse(node.test)
        before = self._for_types_only
        self._for_types_only |= condition in ("TYPE_CHECKING", "typing.TYPE_CHECKING")
        for child in node.body:
            self.visit(child)
        self._for_types_only = before
        for child in node.orelse:
            self.visit(child)

    def visit_Import(self, node):
        self.found += [(alias.name, node.lineno, self._for_types_only) for alias in node.names]

    def visit_ImportFrom(self, node):
        assert node.level == 0, f"line {node.lineno}: a relative import"
        self.found += [
            (f"{node.module}.{alias.name}", node.lineno, self._for_types_only)
            for alias in node.names
        ]


def imported_names(path):
    visitor = Imports()
    visitor.visit(ast.parse(path.read_text(), str(path)))
    return visitor.found


def imports(package=PACKAGE):
    """Every import of one module of the package by another."""
    known = modules(package)
    found = []
    for importer, path in known.items():
        for name, line, for_types_only in imported_names(path):
            top, _, rest = name.partition(".")
            if top != package.name:
                continue
            while rest and rest not in known:  # the name of something inside a module
                rest = rest.rpartition(".")[0]
            found.append(Import(importer, rest or "__init__", line, for_types_only))
    return sorted(set(found))


def climbs(found):
    """Those imports that go up, or across to another room of the same floor."""
    return [
        edge
        for edge in found
        if room(edge.importer) != room(edge.imported)
        and FLOOR[room(edge.imported)] >= FLOOR[room(edge.importer)]
    ]


def circle(found):
    """Modules that import each other in a ring, or None."""
    graph = {}
    for edge in found:
        if not edge.for_types_only and edge.importer != edge.imported:
            graph.setdefault(edge.importer, set()).add(edge.imported)
    finished = set()

    def search(module, path):
        if module in path:
            return [*path[path.index(module) :], module]
        if module not in finished:
            for imported in sorted(graph.get(module, ())):
                ring = search(imported, [*path, module])
                if ring:
                    return ring
            finished.add(module)
        return None

    return next(filter(None, (search(module, []) for module in sorted(graph))), None)


@functools.cache
def own_imports():
    return imports()


def test_every_module_has_a_floor():
    assert {room(module) for module in modules()} <= set(FLOOR)


def test_no_import_climbs():
    wrong = [f"{e.importer}:{e.line} imports {e.imported}" for e in climbs(own_imports())]
    assert not wrong, "\n".join(wrong)


def test_no_modules_import_each_other_in_a_circle():
    ring = circle(own_imports())
    assert ring is None, " -> ".join(ring)


@pytest.mark.parametrize("name", GROUND)
def test_ground_floor_needs_pytorch_and_numpy_alone(name):
    allowed = {"mcfa_fast", "torch", "numpy", *sys.stdlib_module_names}
    paths = [path for module, path in modules().items() if room(module) == name]
    assert paths
    for path in paths:
        used = {imported.partition(".")[0] for imported, *_ in imported_names(path)}
        stood_in_for = {path.stem} if name == "compat" else set()
        assert used <= allowed | stood_in_for


def test_no_file_is_too_long():
    suffixes = {".py", ".cpp", ".h", ".cu", ".cuh", ".sh", ".j2"}
    folders = ("mcfa_fast", "csrc", "tests", "benchmarks", "build_support", "examples")
    paths = (path for folder in folders for path in (ROOT / folder).rglob("*"))
    lengths = {
        path.relative_to(ROOT).as_posix(): len(path.read_text().splitlines())
        for path in paths
        if path.suffix in suffixes and "results" not in path.parts
    }
    assert lengths
    too_long = {name: length for name, length in lengths.items() if length > LONGEST}
    assert not too_long, too_long


def toy(folder, **files):
    """The imports of a package with these files, ``__`` in a name standing for a folder."""
    for name, text in files.items():
        path = folder / "toy" / f"{name.replace('__', '/')}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return imports(folder / "toy")


def test_a_climb_would_be_found_even_inside_a_function_or_for_types(tmp_path):
    found = toy(
        tmp_path,
        storage__a="def f():\n    from toy.data.b import x",
        data__b="from toy.storage import a\nfrom toy.evaluation.c import y",
        evaluation__c="if TYPE_CHECKING:\n    from toy.cli import d",
        cli__d="import toy",
    )
    wrong = {(edge.importer, edge.imported) for edge in climbs(found)}
    assert wrong == {
        ("storage.a", "data.b"),
        ("data.b", "evaluation.c"),
        ("evaluation.c", "cli.d"),
        ("cli.d", "__init__"),
    }


def test_a_circle_would_be_found_except_one_for_types(tmp_path):
    files = {"a": "from toy.b import x", "b": "import toy.c"}
    assert circle(toy(tmp_path / "one", **files, c="def f():\n    from toy import a")) == [
        "a",
        "b",
        "c",
        "a",
    ]
    for_types = "if TYPE_CHECKING:\n    from toy import a"
    assert circle(toy(tmp_path / "two", **files, c=for_types)) is None
