"""What code uses of which class, read from the code alone."""

from __future__ import annotations

import ast


class Uses(ast.NodeVisitor):
    """Members as pairs of class and name, and those of which `assert_type` says the type.

    The class of a name is the one that its function's parameter is annotated with.
    """

    def __init__(self) -> None:
        self.imported: set[str] = set()
        self.used: set[tuple[str, str]] = set()
        self.asserted: set[tuple[str, str]] = set()
        self._classes: dict[str, str] = {}
        self._asserts = False

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        """Notes what comes from the face."""
        self.imported |= {f"{node.module}.{one.name}" for one in node.names}

    def visit_FunctionDef(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        """Notes the classes of the parameters."""
        given = (one for one in node.args.args if one.annotation is not None)
        outer = self._classes
        self._classes = outer | {one.arg: _class(one.annotation) for one in given}
        self.generic_visit(node)
        self._classes = outer

    visit_AsyncFunctionDef = visit_FunctionDef

    def visit_Call(self, node: ast.Call) -> None:
        """Notes what `assert_type` is about."""
        outer = self._asserts
        self._asserts = outer or (isinstance(node.func, ast.Name) and node.func.id == "assert_type")
        self.generic_visit(node)
        self._asserts = outer

    def visit_withitem(self, node: ast.withitem) -> None:
        """Takes what is entered for asserted: its type has no public name, what it yields has."""
        self._asserts = True
        self.generic_visit(node)
        self._asserts = False

    def visit_Attribute(self, node: ast.Attribute) -> None:
        """Notes a member of a class."""
        if isinstance(node.value, ast.Name):
            member = (self._classes.get(node.value.id, node.value.id), node.attr)
            self.used.add(member)
            if self._asserts:
                self.asserted.add(member)
        self.generic_visit(node)


def _class(annotation: ast.expr | None) -> str:
    return "" if annotation is None else ast.unparse(annotation).partition("[")[0]
