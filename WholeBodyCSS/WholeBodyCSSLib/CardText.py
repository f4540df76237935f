"""A task card in words: for a person who must decide whether to trust a task."""

from __future__ import annotations

import html
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from wbcss.cards import TaskCard

from .DecoderSize import decoderSize, sizeSentence
from .Translation import _

_SHOWN_ORGANS = 12


@dataclass(frozen=True, kw_only=True)
class Validation:
    """What the card says about quality.

    Attributes:
        meanDice: Over organs; None if nothing was measured.
        numCases: Held-out scans, or synthetic patches.
        isSynthetic: Whether it was measured on drawn images only.
        organs: Dice of every measured organ, worst first.
        note: What the card adds in words.
    """

    meanDice: float | None = None
    numCases: int = 0
    isSynthetic: bool = False
    organs: tuple[tuple[str, float], ...] = ()
    note: str = ""


def validationOf(card: TaskCard) -> Validation:
    """Read the free JSON of the card; what is not understood counts as not measured."""
    heldOut, synthetic = card.validation.get("held_out"), card.validation.get("synthetic")
    if isinstance(heldOut, Mapping):
        dice = {name: row.get("dice") for name, row in _mapping(heldOut.get("organs")).items() if _isMapping(row)}
        mean = _number(_mapping(heldOut.get("mean")).get("dice"))
        return _validation(dice, mean, heldOut.get("cases"), isSynthetic=False, note=heldOut.get("note"))
    if isinstance(synthetic, Mapping):
        return _validation(
            _mapping(synthetic.get("dice")),
            None,
            synthetic.get("patches"),
            isSynthetic=True,
            note=synthetic.get("note"),
        )
    return Validation()


def validationText(validation: Validation) -> str:
    """One short line, as in ``mean Dice 0.85 in 3 held-out scans``."""
    if validation.meanDice is None:
        return _("not measured")
    text = _("mean Dice {dice} in {count} held-out scans")
    if validation.isSynthetic:
        text = _("mean Dice {dice} on {count} synthetic images")
    return text.format(dice=f"{validation.meanDice:.2f}", count=validation.numCases)


def cardAsHtml(card: TaskCard, *, sizeText: str, encoderName: str, state: str) -> str:
    """The card as a small page without style: headings, facts, organs and how well each is found."""
    validation, size = validationOf(card), decoderSize(card.validation.get("trimming"))
    facts = (
        (_("State"), state),
        (_("Runs"), runsText(card)),
        (_("Published"), card.created),
        (_("Learned from"), _("{count} annotated scans or images").format(count=card.training_cases)),
        (_("Quality"), validationText(validation)),
        (_("Not able to"), card.limits or _("nothing recorded")),
        (_("License"), card.license),
        (_("Origin"), card.provenance),
        (_("Works with"), encoderName),
        (_("Size"), sizeText),
        *([] if size is None else [(_("Decoder"), sizeSentence(size))]),
        (_("Fingerprint"), f"SHA-256 {card.weights_sha256[:16]}..."),
    )
    rows = "".join(f"<tr><td><b>{_escaped(name)}</b></td><td>{_escaped(text)}</td></tr>" for name, text in facts)
    parts = [f"<h3>{_escaped(card.title)}</h3>", f"<table cellpadding='3'>{rows}</table>"]
    if validation.note:
        parts.append(f"<p>{_escaped(validation.note)}</p>")
    names = ", ".join(organ.display_name for organ in card.organs)
    parts.append(f"<p><b>{_escaped(_('Organs ({count})').format(count=len(card.organs)))}</b>: {_escaped(names)}</p>")
    if len(validation.organs) > 1:
        worst = _("Least well found")
        listed = "; ".join(f"{name} {dice:.2f}" for name, dice in _displayed(card, validation))
        parts.append(f"<p><b>{_escaped(worst)}</b> (Dice): {_escaped(listed)}</p>")
    return "".join(parts)


def runsText(card: TaskCard) -> str:
    """When the task runs, in words."""
    if card.on_request:
        return _("on request: when one of its own organs is ticked or named, never by itself")
    return _("with every segmentation of the whole body")


def _displayed(card: TaskCard, validation: Validation) -> Iterator[tuple[str, float]]:
    titles = {str(organ.name): organ.display_name for organ in card.organs}
    for name, dice in validation.organs[:_SHOWN_ORGANS]:
        yield titles.get(name, name), dice


def _validation(
    dice: Mapping[str, Any], mean: float | None, count: object, *, isSynthetic: bool, note: object
) -> Validation:
    known = {name: number for name, value in dice.items() if (number := _number(value)) is not None}
    if mean is None and known:
        mean = sum(known.values()) / len(known)
    return Validation(
        meanDice=mean,
        numCases=count if isinstance(count, int) else 0,
        isSynthetic=isSynthetic,
        organs=tuple(sorted(known.items(), key=lambda item: (item[1], item[0]))),
        note=note if isinstance(note, str) else "",
    )


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _isMapping(value: object) -> bool:
    return isinstance(value, Mapping)


def _number(value: object) -> float | None:
    isNumber = isinstance(value, (int, float)) and not isinstance(value, bool)
    return float(value) if isNumber and math.isfinite(value) else None  # type: ignore[arg-type]


def _escaped(text: str) -> str:
    return html.escape(text, quote=True)
