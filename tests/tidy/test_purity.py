"""What no import shows: asserts, files, per-process hashes, floats and the order of sets."""

from __future__ import annotations

import ast
from collections.abc import Iterator

import pytest

FLOAT_FREE = ("consensus", "chain", "ledger", "codec")
SETS = ("set", "frozenset")
ORDER_FREE = ("sorted", "sum", "any", "all", "len", "set", "frozenset")
"""Calls whose answer does not depend on the order of what they are given."""


def test_medchain_has_no_assert_statement(sources, report):
    offenders = [source.at(node) for source in sources for node in ast.walk(source.tree) if isinstance(node, ast.Assert)]
    report("`python -O` strips assert; raise one of the families of errors.py instead:", offenders)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("open", "files are above the I/O line"),
        ("input", "the terminal is above the I/O line"),
        ("print", "the terminal is above the I/O line"),
        ("hash", "its answer differs per process"),
        ("id", "its answer differs per process"),
    ],
)
def test_pure_room_calls_no_builtin_of_the_world(pure_sources, report, name, reason):
    offenders = [
        source.at(node)
        for source in pure_sources
        for node in ast.walk(source.tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == name
    ]
    report(f"builtin {name}() in a pure room: {reason}:", offenders)


def test_rules_of_the_chain_use_no_floats(sources, report):
    offenders = []
    for source in sources:
        if source.room not in FLOAT_FREE:
            continue
        for node in ast.walk(source.tree):
            if isinstance(node, ast.Constant) and isinstance(node.value, float):
                offenders.append(f"{source.at(node)}: the float {node.value}")
            elif isinstance(node, (ast.BinOp, ast.AugAssign)) and isinstance(node.op, ast.Div):
                offenders.append(f"{source.at(node)}: / makes a float; use // or integers of a smaller unit")
            elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "float":
                offenders.append(f"{source.at(node)}: float()")
    report("two machines may round differently:", offenders)


def is_set_type(annotation: ast.expr | None) -> bool:
    if isinstance(annotation, ast.Subscript):
        if isinstance(annotation.value, ast.Name) and annotation.value.id == "Final":
            return is_set_type(annotation.slice)
        annotation = annotation.value
    return isinstance(annotation, ast.Name) and annotation.id in (*SETS, "AbstractSet", "MutableSet")


def is_set_value(value: ast.expr | None, names: set[str]) -> bool:
    if isinstance(value, (ast.Set, ast.SetComp)):
        return True
    if isinstance(value, ast.Call):
        return isinstance(value.func, ast.Name) and value.func.id in SETS
    if isinstance(value, ast.BinOp) and isinstance(value.op, (ast.BitOr, ast.BitAnd, ast.Sub, ast.BitXor)):
        return is_set_value(value.left, names) or is_set_value(value.right, names)
    if isinstance(value, ast.IfExp):
        return is_set_value(value.body, names) or is_set_value(value.orelse, names)
    if isinstance(value, ast.Name):
        return value.id in names
    return isinstance(value, ast.Attribute) and f".{value.attr}" in names


def fields_of_sets(tree: ast.Module) -> set[str]:
    """Attributes (`.name`) that a class of the module declares or assigns as sets, and module-level names."""
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef):
            for line in node.body:
                if isinstance(line, ast.AnnAssign) and isinstance(line.target, ast.Name) and is_set_type(line.annotation):
                    names.add(f".{line.target.id}")
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Attribute) and is_set_type(node.annotation):
            names.add(f".{node.target.attr}")
        if isinstance(node, ast.Assign) and is_set_value(node.value, set()):
            names |= {f".{target.attr}" for target in node.targets if isinstance(target, ast.Attribute)}
    return names | names_of_sets(tree.body, names)


def names_of_sets(body: list[ast.stmt], known: set[str]) -> set[str]:
    names: set[str] = set()
    for statement in body:
        for node in [statement] if isinstance(statement, (ast.FunctionDef, ast.ClassDef)) else ast.walk(statement):
            if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and is_set_type(node.annotation):
                names.add(node.target.id)
            if isinstance(node, ast.Assign) and is_set_value(node.value, known | names):
                names |= {target.id for target in node.targets if isinstance(target, ast.Name)}
    return names


def iterations_over_sets(tree: ast.Module) -> Iterator[ast.expr]:
    fields = fields_of_sets(tree)
    for scope in ast.walk(tree):
        if not isinstance(scope, (ast.Module, ast.FunctionDef)):
            continue
        names = set(fields)
        if isinstance(scope, ast.FunctionDef):
            arguments = [*scope.args.posonlyargs, *scope.args.args, *scope.args.kwonlyargs]
            names -= {argument.arg for argument in arguments}
            names |= {argument.arg for argument in arguments if is_set_type(argument.annotation)}
            names |= names_of_sets(scope.body, names)
        harmless: set[int] = set()
        for node in own_nodes(scope):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                if node.func.id in ORDER_FREE:
                    harmless |= {id(argument) for argument in node.args}
                elif node.func.id in ("list", "tuple", "enumerate", "iter", "zip", "map", "filter", "next"):
                    yield from (argument for argument in node.args if id(node) not in harmless and is_set_value(argument, names))
            if isinstance(node, ast.For) and is_set_value(node.iter, names):
                yield node.iter
            if isinstance(node, (ast.ListComp, ast.GeneratorExp, ast.DictComp)) and id(node) not in harmless:
                yield from (generator.iter for generator in node.generators if is_set_value(generator.iter, names))


def own_nodes(scope: ast.AST) -> Iterator[ast.AST]:
    """The nodes of a scope, parents first, without those of functions defined inside it."""
    for child in ast.iter_child_nodes(scope):
        if isinstance(child, ast.FunctionDef):
            continue
        yield child
        yield from own_nodes(child)


def test_pure_room_never_goes_through_a_set_in_its_own_order(pure_sources, report):
    offenders = [f"{source.at(node)}: {ast.unparse(node)}" for source in pure_sources for node in iterations_over_sets(source.tree)]
    report("the order of a set differs per process; go through sorted(...) or keep a tuple or a dict:", offenders)


@pytest.mark.parametrize(
    "text",
    [
        "for voter in {1, 2}: pass",
        "for voter in set(votes): pass",
        "def f(votes: frozenset[bytes]):\n    return [vote for vote in votes]",
        "def f():\n    seen = set()\n    for vote in seen: pass",
        "class A:\n    seen: set[bytes]\n    def f(self):\n        return tuple(self.seen)",
        "def f(a: set[int], b):\n    for c in a - b: pass",
        "def f(a: set[int]):\n    return {k: 1 for k in a}",
    ],
)
def test_rule_on_sets_finds_an_offence(text):
    assert list(iterations_over_sets(ast.parse(text)))


@pytest.mark.parametrize(
    "text",
    [
        "def f(votes: set[bytes]):\n    for vote in sorted(votes): pass",
        "def f(votes: set[bytes]):\n    return any(vote for vote in votes)",
        "def f(votes: set[bytes]):\n    return sorted(vote for vote in votes)",
        "def f(votes: set[bytes]):\n    return {vote for vote in votes}",
        "def f(votes: tuple[bytes, ...]):\n    for vote in votes: pass",
    ],
)
def test_rule_on_sets_leaves_lawful_code_alone(text):
    assert not list(iterations_over_sets(ast.parse(text)))
