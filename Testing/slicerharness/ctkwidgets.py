"""Stand-ins for the widgets of CTK that panels use. What counts is their behavior: properties, signals, not pixels."""

from __future__ import annotations

from typing import Any

from PySide6 import QtCore, QtGui, QtWidgets
from PySide6.QtCore import Property, Signal

from .pythonqt import PythonQtObject
from .standin import stored, with_setters

TITLE_HEIGHT = 24


@with_setters
class ctkCollapsibleButton(PythonQtObject, QtWidgets.QWidget):
    """A section with a title to click on."""

    _is_cpp = True
    contentsCollapsed = Signal(bool)
    clicked = Signal(bool)
    toggled = Signal(bool)
    cpp_signals = ("contentsCollapsed(bool)", "clicked(bool)", "clicked()", "toggled(bool)")

    def __init__(self, *arguments: Any) -> None:
        super().__init__(next((a for a in arguments if isinstance(a, QtWidgets.QWidget)), None))
        self._text = next((a for a in arguments if isinstance(a, str)), "")
        self._collapsed = False
        self._hidden_here: list[QtWidgets.QWidget] = []

    def _set_collapsed(self, collapsed: bool) -> None:
        collapsed = bool(collapsed)
        if collapsed == self._collapsed:
            return
        self._collapsed = collapsed
        if collapsed:
            children = [child for child in self.children() if isinstance(child, QtWidgets.QWidget)]
            self._hidden_here = [child for child in children if not child.isHidden()]
        for child in self._hidden_here:
            child.setVisible(not collapsed)
        self.setMaximumHeight(TITLE_HEIGHT if collapsed else 16777215)
        self.contentsCollapsed.emit(collapsed)
        self.toggled.emit(not collapsed)
        self.update()

    def _set_text(self, text: str) -> None:
        self._text = str(text)
        self.update()

    collapsed = Property(bool, lambda self: self._collapsed, _set_collapsed)
    checked = Property(bool, lambda self: not self._collapsed, lambda self, on: self._set_collapsed(not on))
    text = Property(str, lambda self: self._text, _set_text)
    collapsedHeight = stored(int, 10)
    flat = stored(bool, False)

    def event(self, event: QtCore.QEvent) -> bool:
        """Keep the layout below the title."""
        if event.type() in {QtCore.QEvent.Type.Polish, QtCore.QEvent.Type.LayoutRequest} and self.layout() is not None:
            margins = QtWidgets.QLayout.contentsMargins(self.layout())
            if margins.top() < TITLE_HEIGHT:
                self.layout().setContentsMargins(9, TITLE_HEIGHT + 4, 9, 6)
        return super().event(event)

    def mousePressEvent(self, event: QtGui.QMouseEvent) -> None:
        """A click on the title folds and unfolds."""
        if event.position().y() < TITLE_HEIGHT:
            self.collapsed = not self._collapsed
            self.clicked.emit(not self._collapsed)

    def paintEvent(self, _event: QtGui.QPaintEvent) -> None:
        """A bevel with an arrow."""
        painter, option = QtGui.QPainter(self), QtWidgets.QStyleOptionButton()
        option.rect = QtCore.QRect(0, 0, self.width, TITLE_HEIGHT - 1)
        option.state = QtWidgets.QStyle.StateFlag.State_Enabled | QtWidgets.QStyle.StateFlag.State_Raised
        self.style().drawControl(QtWidgets.QStyle.ControlElement.CE_PushButtonBevel, option, painter, self)
        painter.drawText(10, 16, ("\u25b8 " if self._collapsed else "\u25be ") + self._text)
        painter.end()


class ctkCollapsibleGroupBox(PythonQtObject, QtWidgets.QGroupBox):
    """A group box that hides its contents when unchecked."""

    _is_cpp = True

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.setCheckable(True)
        self.toggled.connect(self._fold)

    def _fold(self, on: bool) -> None:
        self.setMaximumHeight(16777215 if on else TITLE_HEIGHT)

    collapsed = Property(bool, lambda self: not self.checked, lambda self, on: self.setChecked(not on))


def _of_box(kind: type, name: str) -> Property:
    """A property of the number box inside."""
    return Property(kind, lambda self: getattr(self._box, name), lambda self, value: setattr(self._box, name, value))


@with_setters
class ctkSliderWidget(PythonQtObject, QtWidgets.QWidget):
    """A slider and a number box that show one value."""

    _is_cpp = True
    STEPS = 1000
    valueChanged = Signal(float)
    valueIsChanging = Signal(float)
    cpp_signals = ("valueChanged(double)", "valueIsChanging(double)")

    def __init__(self, parent: QtWidgets.QWidget | None = None, *_rest: Any) -> None:
        super().__init__(parent)
        row = QtWidgets.QHBoxLayout(self)
        row.setContentsMargins(0, 0, 0, 0)
        self._slider, self._box = QtWidgets.QSlider(QtCore.Qt.Orientation.Horizontal), QtWidgets.QDoubleSpinBox()
        self._slider.setRange(0, self.STEPS)
        self._box.setRange(0, 99)
        row.addWidget(self._slider, 1)
        row.addWidget(self._box)
        self._box.valueChanged.connect(self._on_box)
        self._slider.sliderMoved.connect(self._on_slider)

    def _on_box(self, value: float) -> None:
        low, high = self._box.minimum, self._box.maximum
        self._slider.setValue(round(self.STEPS * (value - low) / (high - low)) if high > low else 0)
        self.valueChanged.emit(value)

    def _on_slider(self, position: int) -> None:
        low, high = self._box.minimum, self._box.maximum
        self._box.setValue(low + (high - low) * position / self.STEPS)

    value = _of_box(float, "value")
    minimum = _of_box(float, "minimum")
    maximum = _of_box(float, "maximum")
    decimals = _of_box(int, "decimals")
    singleStep = _of_box(float, "singleStep")
    suffix = _of_box(str, "suffix")
    prefix = _of_box(str, "prefix")
    tracking = stored(bool, True)
    pageStep = stored(float, 1.0)
    tickInterval = stored(float, 0.0)
    spinBoxVisible = stored(bool, True)

    def setRange(self, minimum: float, maximum: float) -> None:
        self._box.setRange(minimum, maximum)


class ctkDoubleSpinBox(ctkSliderWidget):
    """Only the number box."""

    def __init__(self, parent: QtWidgets.QWidget | None = None, *_rest: Any) -> None:
        super().__init__(parent)
        self._slider.hide()


@with_setters
class ctkRangeWidget(PythonQtObject, QtWidgets.QWidget):
    """Two number boxes for the ends of a range."""

    _is_cpp = True
    valuesChanged = Signal(float, float)
    cpp_signals = ("valuesChanged(double,double)",)

    def __init__(self, parent: QtWidgets.QWidget | None = None) -> None:
        super().__init__(parent)
        row = QtWidgets.QHBoxLayout(self)
        row.setContentsMargins(0, 0, 0, 0)
        self._boxes = (QtWidgets.QDoubleSpinBox(), QtWidgets.QDoubleSpinBox())
        for box, start in zip(self._boxes, (0, 99), strict=True):
            box.setRange(0, 99)
            box.setValue(start)
            box.valueChanged.connect(self._report)
            row.addWidget(box)

    def _report(self, _value: float) -> None:
        self.valuesChanged.emit(self._boxes[0].value, self._boxes[1].value)

    def _of_both(name: str, kind: type) -> Property:
        def change(self: Any, value: Any) -> None:
            for box in self._boxes:
                setattr(box, name, value)

        return Property(kind, lambda self: getattr(self._boxes[0], name), change)

    minimumValue = Property(float, lambda self: self._boxes[0].value, lambda self, v: self._boxes[0].setValue(v))
    maximumValue = Property(float, lambda self: self._boxes[1].value, lambda self, v: self._boxes[1].setValue(v))
    minimum, maximum = _of_both("minimum", float), _of_both("maximum", float)
    decimals, singleStep = _of_both("decimals", int), _of_both("singleStep", float)
    del _of_both

    def setRange(self, minimum: float, maximum: float) -> None:
        for box in self._boxes:
            box.setRange(minimum, maximum)

    def setValues(self, low: float, high: float) -> None:
        self._boxes[0].setValue(low)
        self._boxes[1].setValue(high)


@with_setters
class ctkPathLineEdit(PythonQtObject, QtWidgets.QWidget):
    """A path to type or to choose."""

    _is_cpp = True
    Dirs, Drives, Files, Readable, Writable, Executable = 1, 2, 4, 16, 32, 64
    currentPathChanged = Signal(str)
    validInputChanged = Signal(bool)
    cpp_signals = ("currentPathChanged(QString)", "validInputChanged(bool)")

    def __init__(self, parent: QtWidgets.QWidget | None = None, *_rest: Any) -> None:
        super().__init__(parent)
        row = QtWidgets.QHBoxLayout(self)
        row.setContentsMargins(0, 0, 0, 0)
        self._edit, browse = QtWidgets.QLineEdit(), QtWidgets.QToolButton()
        browse.setText("\u2026")
        row.addWidget(self._edit)
        row.addWidget(browse)
        self._edit.textChanged.connect(self.currentPathChanged)
        self._history: list[str] = []

    currentPath = Property(str, lambda self: self._edit.text, lambda self, path: self._edit.setText(path))
    filters = stored(int, 0)
    nameFilters = stored("QStringList", ())
    settingKey = stored(str, "")
    label = stored(str, "")
    showHistoryButton = stored(bool, True)
    showBrowseButton = stored(bool, True)

    def addCurrentPathToHistory(self) -> None:
        self._history.append(self._edit.text)


@with_setters
class ctkDirectoryButton(PythonQtObject, QtWidgets.QPushButton):
    """A button that shows the chosen folder."""

    _is_cpp = True
    directoryChanged = Signal(str)
    directorySelected = Signal(str)
    cpp_signals = ("directoryChanged(QString)", "directorySelected(QString)")

    def __init__(self, *_arguments: Any) -> None:
        super().__init__()
        self._directory = ""

    def _set_directory(self, directory: str) -> None:
        if directory != self._directory:
            self._directory = str(directory)
            self.setText(self._directory)
            self.directoryChanged.emit(self._directory)

    directory = Property(str, lambda self: self._directory, _set_directory)
    caption = stored(str, "")


@with_setters
class ctkColorPickerButton(PythonQtObject, QtWidgets.QPushButton):
    """A button that shows the chosen color."""

    _is_cpp = True
    colorChanged = Signal(QtGui.QColor)
    cpp_signals = ("colorChanged(QColor)",)

    def __init__(self, *_arguments: Any) -> None:
        super().__init__()
        self._color = QtGui.QColor("black")

    def _set_color(self, color: QtGui.QColor) -> None:
        if color != self._color:
            self._color = QtGui.QColor(color)
            picture = QtGui.QPixmap(14, 14)
            picture.fill(self._color)
            self.setIcon(QtGui.QIcon(picture))
            if self._shows_name:
                self.setText(self._color.name())
            self.colorChanged.emit(self._color)

    _shows_name = True
    color = Property(QtGui.QColor, lambda self: self._color, _set_color)
    displayColorName = stored(bool, True, lambda self: setattr(self, "_shows_name", self.displayColorName))


@with_setters
class ctkSearchBox(PythonQtObject, QtWidgets.QLineEdit):
    """A line edit with a looking glass."""

    _is_cpp = True
    showSearchIcon = stored(bool, False)
    alwaysShowClearIcon = stored(bool, False)


@with_setters
class ctkComboBox(PythonQtObject, QtWidgets.QComboBox):
    """A combo box with a text for no choice."""

    _is_cpp = True
    defaultText = stored(str, "")


class ctkCheckBox(PythonQtObject, QtWidgets.QCheckBox):
    """A check box."""

    _is_cpp = True


@with_setters
class ctkCheckablePushButton(PythonQtObject, QtWidgets.QPushButton):
    """A push button with a check box."""

    _is_cpp = True
    checkBoxControlsButtonToggleState = stored(bool, True)


class ctkMenuButton(PythonQtObject, QtWidgets.QPushButton):
    """A push button with a menu."""

    _is_cpp = True


class ctkFittedTextBrowser(PythonQtObject, QtWidgets.QTextBrowser):
    """A text browser as high as its text."""

    _is_cpp = True
