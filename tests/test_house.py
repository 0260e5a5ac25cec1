"""The house's rules: which room may use which, where the large libraries may be imported, what every module has.

Read from the import statements alone; nothing is imported here.
"""

import ast
import sys
from functools import cache
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
SRC = TESTS.parent / "src" / "branchynet"

# From the ground up: a room uses itself and those on lower floors, and none beside it.
FLOORS = [
    {"errors", "regular"},
    {"forms"},
    {"networks", "data", "exits"},
    {"training", "runtime"},
    {"exports"},
    {"evaluation"},
    {"runs"},
    {"reporting"},
    {"callbacks"},
    {"commands"},
    {"api", "__main__"},
]
FLOOR = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}


@cache
def modules():
    """Every module below the package by its dotted name, `commands.app`, with its file; packages by their own."""
    found = {}
    for path in sorted(SRC.rglob("*.py")):
        parts = path.relative_to(SRC).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)] = path
    return found


@cache
def tree_of(path):
    return ast.parse(path.read_text(encoding="utf-8"))


def is_type_checking(node):
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


def statements(node, typing):
    """All import statements in `node`, those in functions, too; those for type checkers alone if `typing`."""
    if isinstance(node, ast.Import | ast.ImportFrom):
        yield node
    below = node.orelse if is_type_checking(node) and not typing else ast.iter_child_nodes(node)
    for child in below:
        yield from statements(child, typing)


def imported(path, typing=False):
    """The full dotted names that a file imports: modules, and what is taken out of modules."""
    names = []
    for node in statements(tree_of(path), typing):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        else:
            assert node.level == 0, f"{path}: imports say in full what they import"
            names += [f"{node.module}.{alias.name}" for alias in node.names]
    return names


def own_module(name):
    """The module of ours that an imported name is or comes from: `commands.app`; None if it is another's."""
    if name.partition(".")[0] != "branchynet":
        return None
    below = name.split(".")[1:]
    while below and ".".join(below) not in modules():
        below.pop()
    return ".".join(below) or "__init__"


def uses():
    """(module, module that it uses) for all of ours, the package itself left out: see the test of that."""
    for module, path in modules().items():
        for name in imported(path):
            other = own_module(name)
            if other not in (None, "__init__", module):
                yield module, other


def room(module):
    return module.partition(".")[0]


def test_every_room_has_its_floor():
    """A new room needs a place in FLOORS."""
    assert {room(module) for module in modules()} == {*FLOOR, "__init__"}
    assert len(list(uses())) > 200, "the imports are found"


def test_no_import_runs_upwards_or_to_the_room_beside():
    wrong = [
        f"{module} uses {other}"
        for module, other in uses()
        if module != "__init__" and room(module) != room(other) and FLOOR[room(other)] >= FLOOR[room(module)]
    ]
    assert not wrong


def test_of_the_package_itself_only_the_version_is_used():
    """It stands at the top, but importing anything of ours imports it first; and it imports nothing at once."""
    assert not [name for name in imported(modules()["__init__"]) if name.startswith("branchynet")]
    for module, path in modules().items():
        if any(own_module(name) == "__init__" for name in imported(path)):
            taken = {
                node.attr
                for node in ast.walk(tree_of(path))
                if isinstance(node, ast.Attribute)
                and isinstance(node.value, ast.Name)
                and node.value.id == "branchynet"
            }
            named = {name.partition(".")[2] for name in imported(path) if own_module(name) == "__init__"} - {
                ""
            }
            assert taken | named == {"__version__"}, module


def test_no_module_uses_itself_by_way_of_others():
    graph = {module: set() for module in modules()}
    for module, other in uses():
        graph[module].add(other)
    done, path = set(), []

    def visit(module):
        if module in path:
            pytest.fail("a circle: " + " → ".join([*path[path.index(module) :], module]))
        if module not in done:
            path.append(module)
            for other in sorted(graph[module]):
                visit(other)
            path.pop()
            done.add(module)

    for module in graph:
        visit(module)
    assert done == set(graph)


def places_of(*libraries):
    """The modules of ours that import one of these, for type checkers alone or not."""
    return {
        module
        for module, path in modules().items()
        if any(name.partition(".")[0] in libraries for name in imported(path, typing=True))
    }


def test_configs_are_known_to_commands_and_runs_alone():
    found = places_of("hydra", "omegaconf")
    assert {room(module) for module in found} == {"commands", "runs"}


def test_lightning_is_known_to_what_trains_alone():
    found = places_of("lightning", "pytorch_lightning")
    assert {room(module) for module in found - {"data.module"}} == {"training", "callbacks", "commands"}
    assert "data.module" in found


def test_drawing_is_reportings_alone():
    assert {room(module) for module in places_of("matplotlib")} == {"reporting"}


def test_rooms_import_nothing_large_by_themselves():
    """So that a module costs what it needs itself: an export runs without PyTorch."""
    for path in SRC.glob("*/__init__.py"):
        assert {name.partition(".")[0] for name in imported(path)} <= sys.stdlib_module_names, path


def test_every_module_says_what_it_is_for():
    assert not [module for module, path in modules().items() if not ast.get_docstring(tree_of(path))]


def test_every_module_has_its_tests():
    """In the room of the same name, in a file of the same name."""
    wanted = {
        "/".join([*module.split(".")[:-1], f"test_{module.split('.')[-1].strip('_')}.py"])
        for module, path in modules().items()
        if path.name != "__init__.py"
    }
    assert not {name for name in wanted if not (TESTS / name).is_file()}


# Public, in spite of the underscore: of named tuples, and of configs.
PUBLIC = {"_replace", "_fields", "_asdict", "_target_", "_partial_"}


def is_private(name):
    return name.startswith("_") and not name.startswith("__") and name not in PUBLIC


def private_names(tree):
    """Private names of others that a test takes: imported, as an attribute, or by a dotted text."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            yield from (alias.name for alias in node.names if is_private(alias.name))
        elif isinstance(node, ast.Attribute) and is_private(node.attr):
            if not (isinstance(node.value, ast.Name) and node.value.id in ("self", "cls")):
                yield node.attr
        elif isinstance(node, ast.Constant) and str(node.value).startswith("branchynet."):
            yield from (part for part in str(node.value).split(".") if is_private(part))


def test_tests_use_no_private_names():
    """What has no public name may be written otherwise tomorrow."""
    found = {
        f"{path.relative_to(TESTS)}: {name}"
        for path in TESTS.rglob("*.py")
        for name in private_names(tree_of(path))
    }
    assert not found


@pytest.mark.parametrize(
    ("source", "names"),
    [
        ("from a import _b, c", ["_b"]),
        ("x._b", ["_b"]),
        ("def f(self): return self._b", []),
        ("setattr('branchynet.a._b.c', 1)", ["_b"]),
        ("x._replace(a=1), c._target_, m.__name__", []),
    ],
)
def test_private_names_are_found(source, names):
    assert list(private_names(ast.parse(source))) == names


def test_imports_are_found_wherever_they_stand(tmp_path):
    path = tmp_path / "module.py"
    path.write_text(
        "import a.b, c\nfrom d import e\nif TYPE_CHECKING:\n    import f\nelse:\n    import g\n"
        "def h():\n    try:\n        from i.j import k, l\n    except ImportError:\n        import m\n"
    )
    assert imported(path) == ["a.b", "c", "d.e", "g", "i.j.k", "i.j.l", "m"]
    assert imported(path, typing=True) == ["a.b", "c", "d.e", "f", "g", "i.j.k", "i.j.l", "m"]
    assert (
        own_module("branchynet.commands.app.fail") == own_module("branchynet.commands.app") == "commands.app"
    )
    assert own_module("branchynet.__version__") == own_module("branchynet") == "__init__"
    assert own_module("branchynetwork.commands") is None
