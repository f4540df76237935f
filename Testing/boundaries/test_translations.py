"""Every text that a user of the Slicer module reads can be translated: found in the source, without running it."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from project_tree import SLICER_ROOM, named, parsed

SHOWN_PROPERTIES = {
    "text", "toolTip", "title", "placeholderText", "windowTitle", "statusTip", "whatsThis", "html", "plainText",
    "suffix", "prefix", "format", "specialValueText", "label", "caption", "defaultText", "helpText",
    "acknowledgementText",
}  # fmt: skip
SHOWING_CALLS = {
    "setText", "setToolTip", "setTitle", "setPlaceholderText", "setWindowTitle", "setStatusTip", "setWhatsThis",
    "setHtml", "setPlainText", "setFormat", "setLabel", "addItem", "addItems", "addTab", "setTabText", "addAction",
    "addRow", "addButton", "setHeaderLabels", "setHorizontalHeaderLabels", "setHeaderLabel", "setItemText",
    "QTableWidgetItem", "QTreeWidgetItem", "QListWidgetItem", "QLabel", "QPushButton", "QCheckBox", "QAction",
    "QMenu", "errorDisplay", "warningDisplay", "infoDisplay", "messageBox", "confirmOkCancelDisplay",
    "confirmYesNoDisplay", "showStatusMessage", "delayDisplay", "tryWithErrorDisplay", "createProgressDialog",
}  # fmt: skip
WORD = re.compile(r"[A-Za-z]{2,}")
MARKUP = re.compile(r"<[^>]*>|&\w+;")


def _texts(node: ast.expr) -> Iterator[str]:
    """What ``node`` shows of its own, outside ``_(...)``: literals, parts of f-strings, both sides of + and if."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.value
    elif isinstance(node, ast.JoinedStr):
        for part in node.values:
            yield from _texts(part)
    elif isinstance(node, ast.BinOp):
        yield from (*_texts(node.left), *_texts(node.right))
    elif isinstance(node, ast.IfExp):
        yield from (*_texts(node.body), *_texts(node.orelse))
    elif isinstance(node, ast.BoolOp):
        for value in node.values:
            yield from _texts(value)
    elif isinstance(node, (ast.List, ast.Tuple)):
        for item in node.elts:
            yield from _texts(item)


def _shown(tree: ast.AST) -> Iterator[tuple[int, ast.expr]]:
    """Expressions that end up in front of a user, with their lines."""
    for node in ast.walk(tree):
        if isinstance(node, (ast.Assign, ast.AugAssign)):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            if any(isinstance(target, ast.Attribute) and target.attr in SHOWN_PROPERTIES for target in targets):
                yield node.lineno, node.value
        elif isinstance(node, ast.Call):
            function = node.func
            name = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
            if name in SHOWING_CALLS and node.args:
                yield from ((node.lineno, argument) for argument in _first_text(name, node))


def _first_text(name: str, call: ast.Call) -> list[ast.expr]:
    """The arguments that are texts: a page or a key comes before the title, data after it."""
    if name in {"addTab", "setTabText", "setItemText"}:
        return call.args[1:]
    return call.args[:1]


def untranslated(tree: ast.AST) -> list[str]:
    """``line: text`` of every shown text with a word in it that is not passed through ``_``."""
    found = ((line, text) for line, expression in _shown(tree) for text in _texts(expression))
    return [f"{line}: {text}" for line, text in found if WORD.search(MARKUP.sub("", text))]


@pytest.mark.parametrize("path", SLICER_ROOM, ids=named)
def test_no_text_is_shown_untranslated(path: Path) -> None:
    assert untranslated(parsed(path)) == []


@pytest.mark.parametrize("path", SLICER_ROOM, ids=named)
def test_what_is_translated_is_a_literal(path: Path) -> None:
    """The translators' tool reads the source: an f-string or a variable would never be found."""
    calls = [node for node in ast.walk(parsed(path)) if isinstance(node, ast.Call)]
    marked = [call for call in calls if isinstance(call.func, ast.Name) and call.func.id == "_"]
    literal = [
        call for call in marked if isinstance(call.args[0], ast.Constant) and isinstance(call.args[0].value, str)
    ]
    assert [ast.unparse(call) for call in marked if call not in literal] == []


@pytest.mark.parametrize(
    "code",
    [
        "self.ui.statusLabel.text = 'Cancelled'",
        "button.toolTip = f'Segment {name}'",
        "label.setText('Ready' if ready else _('Waiting'))",
        "label.text = _('Organs') + ' found'",
        "slicer.util.errorDisplay('It failed')",
        "tabs.addTab(page, 'Tasks')",
        "table.setItem(0, 0, qt.QTableWidgetItem('Liver'))",
    ],
)
def test_the_rule_sees_what_it_forbids(code: str) -> None:
    assert len(untranslated(ast.parse(code))) == 1


@pytest.mark.parametrize(
    "code",
    [
        "label.text = _('Organs: {count}').format(count=3)",
        "label.text = ''",
        "label.text = str(path)",
        "item = qt.QTableWidgetItem('-')",
        "browser.html = f'<h3>{title}</h3>'",
        "selector.addItem(_('Automatic'), 'auto')",
    ],
)
def test_the_rule_lets_everything_else_pass(code: str) -> None:
    assert untranslated(ast.parse(code)) == []
