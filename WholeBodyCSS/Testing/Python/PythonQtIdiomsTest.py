"""What panels rely on of PythonQt, as a table: true of Slicer's PythonQt, and kept true of the harness."""

import unittest

import qt
import slicer
from WidgetTesting import WidgetTestCase

VALUES = (
    ("a property is a value", lambda: qt.QPushButton("a").text, "a"),
    ("a count is a value", lambda: qt.QComboBox().count, 0),
    ("a number is a value", lambda: qt.QSpinBox().value, 0),
    ("the rows of a table are a value", lambda: qt.QTableWidget(3, 2).rowCount, 3),
    ("a getter of another name stays a method", lambda: qt.QPushButton().isEnabled(), True),
    ("checked is also isChecked()", lambda: qt.QCheckBox().isChecked(), False),
    ("a parent is asked for by a method", lambda: qt.QWidget().parent(), None),
    ("a layout is asked for by a method", lambda: qt.QWidget().layout(), None),
    ("any object is true or false", lambda: assigned(qt.QWidget(), "enabled", None), False),
    ("a text of a number is a text", lambda: assigned(qt.QLineEdit(), "text", 5), "5"),
    ("a text of None is the word", lambda: assigned(qt.QLineEdit(), "text", None), "None"),
    ("a whole number is cut, not rounded", lambda: assigned(qt.QSpinBox(), "value", 3.7), 3),
    ("a setter is a method, too", lambda: qt.QLabel().setText("a"), None),
    ("objectName has a short name", lambda: assigned(qt.QWidget(), "objectName", "a"), "a"),
    ("the class of Qt is known", lambda: qt.QPushButton().className(), "QPushButton"),
    ("wrappers do not inherit", lambda: isinstance(qt.QLineEdit(), qt.QWidget), False),
    ("a check state is its number", lambda: qt.Qt.Checked == 2, True),
    ("an enum value can be had from an object", lambda: qt.QProcess().NotRunning == 0, True),
    ("a current index is a value", lambda: qt.QTabWidget().currentIndex, -1),
    ("the text of an item is a method", lambda: qt.QTreeWidgetItem(["a"]).text(0), "a"),
    ("children are a tuple", lambda: type(qt.QWidget().findChildren(qt.QPushButton)), tuple),
    ("a bar keeps its value", lambda: assigned(qt.QProgressBar(), "value", 40), 40),
    ("a bar without end has no range", lambda: assigned(qt.QProgressBar(), "maximum", 0), 0),
    ("rows of a list are counted by a value", lambda: qt.QListWidget().count, 0),
    ("no row of a list is current", lambda: qt.QListWidget().currentRow, -1),
    ("a plain text is a value", lambda: assigned(qt.QPlainTextEdit(), "plainText", "a"), "a"),
    ("a text can be read only", lambda: assigned(qt.QPlainTextEdit(), "readOnly", True), True),
    ("a timer has an interval", lambda: assigned(qt.QTimer(), "interval", 100), 100),
    ("a timer is active or not", lambda: qt.QTimer().active, False),
    ("pages are counted by a value", lambda: qt.QStackedWidget().count, 0),
)
REFUSED = (
    ("a value is not called", lambda: qt.QPushButton("a").text(), TypeError),
    ("a number is not a text", lambda: assigned(qt.QSpinBox(), "value", "seven"), AttributeError),
    ("a typo is no new attribute", lambda: assigned(qt.QPushButton(), "enabld", True), AttributeError),
    ("a name that nobody has", lambda: qt.QPushButton().enabld, AttributeError),
)


def assigned(widget, name, value):
    """What ``widget.name`` is after ``value`` was assigned to it."""
    setattr(widget, name, value)
    return getattr(widget, name)


class PythonQtIdiomsTest(WidgetTestCase):
    def test_expressionsHaveTheirValues(self):
        for what, expression, expected in VALUES:
            with self.subTest(what):
                self.assertEqual(expression(), expected)

    def test_mistakesAreRefused(self):
        for what, expression, error in REFUSED:
            with self.subTest(what), self.assertRaises(error):
                expression()

    def test_aSlotMayTakeFewerArgumentsThanTheSignal(self):
        button, calls = qt.QPushButton(), []
        self.assertTrue(button.connect("clicked(bool)", lambda: calls.append("none")))
        self.assertTrue(button.connect("clicked(bool)", lambda checked: calls.append(checked)))
        self.assertTrue(button.connect("clicked()", lambda: calls.append("short")))
        button.click()
        self.assertEqual(sorted(map(str, calls)), ["False", "none", "short"])

    def test_aDisconnectedSlotIsNotCalled(self):
        button, calls = qt.QPushButton(), []
        button.connect("clicked(bool)", calls.append)
        button.disconnect("clicked(bool)", calls.append)
        button.click()
        self.assertEqual(calls, [])

    def test_anExceptionInASlotDoesNotComeOutOfTheClick(self):
        button = qt.QPushButton()
        button.connect("clicked(bool)", lambda: 1 / 0)
        with self.expectError("ZeroDivisionError: division by zero"):
            button.click()

    def test_anExceptionInAnObserverDoesNotComeOutOfTheScene(self):
        tag = slicer.mrmlScene.AddObserver(slicer.mrmlScene.NodeAddedEvent, lambda *_: 1 / 0)
        with self.expectError("ZeroDivisionError: division by zero"):
            slicer.mrmlScene.AddNewNodeByClass("vtkMRMLTextNode")
        slicer.mrmlScene.RemoveObserver(tag)

    def test_anExceptionInATimerIsFound(self):
        with self.expectError("ZeroDivisionError: division by zero"):
            qt.QTimer.singleShot(0, lambda: 1 / 0)
            slicer.app.processEvents()

    def test_dynamicPropertiesAreAttributes(self):
        widget = qt.QWidget()
        widget.setProperty("SlicerParameterName", "organ")
        self.assertEqual(widget.SlicerParameterName, "organ")

    def test_aTreeKeepsCheckStates(self):
        tree, changed = qt.QTreeWidget(), []
        tree.setColumnCount(2)
        group = qt.QTreeWidgetItem(tree, ["Abdomen"])
        organ = qt.QTreeWidgetItem(group, ["Liver"])
        organ.setFlags(organ.flags() | qt.Qt.ItemIsUserCheckable)
        organ.setCheckState(0, qt.Qt.Unchecked)
        organ.setData(0, qt.Qt.UserRole, "liver")
        tree.connect("itemChanged(QTreeWidgetItem*,int)", lambda item, column: changed.append(item.text(column)))
        organ.setCheckState(0, qt.Qt.Checked)
        self.assertEqual(changed, ["Liver"])
        self.assertEqual(organ.checkState(0), qt.Qt.Checked)
        self.assertEqual(tree.topLevelItem(0).child(0).data(0, qt.Qt.UserRole), "liver")
        self.assertEqual((tree.topLevelItemCount, group.childCount()), (1, 1))

    def test_aModelKeepsCheckStates(self):
        model, changed = qt.QStandardItemModel(), []
        item = qt.QStandardItem("Liver")
        item.setCheckable(True)
        model.appendRow(item)
        model.connect("itemChanged(QStandardItem*)", lambda changedItem: changed.append(changedItem.text()))
        item.setCheckState(qt.Qt.Checked)
        view = qt.QTreeView()
        view.setModel(model)
        self.assertEqual(changed, ["Liver"])
        self.assertEqual(model.rowCount(), 1)

    def test_pagesAndTabsTellWhichIsShown(self):
        tabs, pages, shown = qt.QTabWidget(), qt.QStackedWidget(), []
        for name in ("one", "two"):
            tabs.addTab(qt.QWidget(), name)
            pages.addWidget(qt.QWidget())
        tabs.connect("currentChanged(int)", shown.append)
        pages.connect("currentChanged(int)", shown.append)
        tabs.currentIndex = pages.currentIndex = 1
        self.assertEqual(shown, [1, 1])

    def test_cellsOfATableHoldTextAndData(self):
        table, edited = qt.QTableWidget(1, 2), []
        table.setHorizontalHeaderLabels(["Organ", "ml"])
        item = qt.QTableWidgetItem("Liver")
        item.setData(qt.Qt.UserRole, 5)
        table.setItem(0, 0, item)
        table.connect("cellChanged(int,int)", lambda row, column: edited.append((row, column)))
        item.setText("Spleen")
        self.assertEqual((table.item(0, 0).text(), table.item(0, 0).data(qt.Qt.UserRole)), ("Spleen", 5))
        self.assertEqual(edited, [(0, 0)])

    def test_aLabelShowsAPicture(self):
        label, picture = qt.QLabel(), qt.QPixmap(4, 3)
        picture.fill(qt.QColor(255, 0, 0))
        label.setPixmap(picture)
        self.assertEqual((label.pixmap.width(), label.pixmap.height()), (4, 3))

    def test_aButtonMadeByQtCanBeConnected(self):
        box, clicked = qt.QDialogButtonBox(qt.QDialogButtonBox.Ok), []
        box.button(qt.QDialogButtonBox.Ok).connect("clicked()", lambda: clicked.append("ok"))
        box.button(qt.QDialogButtonBox.Ok).click()
        self.assertEqual(clicked, ["ok"])

    def test_aHeaderMadeByQtCanBeConnected(self):
        table, clicked = qt.QTableWidget(1, 2), []
        table.horizontalHeader().connect("sectionClicked(int)", clicked.append)
        table.horizontalHeader().setStretchLastSection(True)
        self.assertTrue(table.horizontalHeader().stretchLastSection)

    def test_aProcessTellsWhenItHasFinished(self):
        process, ended = qt.QProcess(), []
        process.connect("finished(int,QProcess::ExitStatus)", lambda code, status: ended.append((code, status)))
        process.start("hostname", [])
        self.waitUntil(lambda: ended, "the process to end")
        self.assertEqual(ended, [(0, qt.QProcess.NormalExit)])

    def test_preferencesAreKeptForTheRunOnly(self):
        qt.QSettings().setValue("WholeBodyCSS/device", "cpu")
        self.assertEqual(qt.QSettings().value("WholeBodyCSS/device"), "cpu")
        self.assertEqual(qt.QSettings().value("WholeBodyCSS/never", "default"), "default")

    def test_theClipboardTakesText(self):
        qt.QApplication.clipboard().setText("report")
        self.assertEqual(qt.QApplication.clipboard().text(), "report")


if __name__ == "__main__":
    unittest.main()
