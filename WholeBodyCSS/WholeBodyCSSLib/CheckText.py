"""*Please check* in words: what each flag of the engine means to a reader of the scan. No Qt, no scene."""

from __future__ import annotations

from dataclasses import dataclass

from wbcss.protocol import OrganCheck

from .Translation import _


@dataclass(frozen=True, kw_only=True)
class CheckText:
    """A flag in words.

    Attributes:
        title: Few words, for the table.
        fact: What is odd, where the engine does not say more.
        advice: What to look at.
    """

    title: str
    fact: str
    advice: str = ""


def checkTexts() -> dict[str, CheckText]:
    """Every flag that ``wbcss.checks`` can raise."""
    return {
        "touches_border": CheckText(
            title=_("cut by the edge"),
            fact=_("Reaches the edge of the image."),
            advice=_("Do not take its volume as that of the whole organ."),
        ),
        "values_doubtful": CheckText(
            title=_("not a CT?"),
            fact=_("The values of the scan are not those of a CT."),
            advice=_("Do not trust any outline; load the CT in Hounsfield units and segment again."),
        ),
        "low_confidence": CheckText(
            title=_("low confidence"),
            fact=_("The network is unsure of it."),
            advice=_("Look at the outline here, where it is least sure."),
        ),
        "several_pieces": CheckText(
            title=_("several pieces"),
            fact=_("Lies in several large pieces, of which this is the second largest."),
            advice=_("Look whether this piece belongs to it."),
        ),
        "unlike_training": CheckText(
            title=_("unlike training"),
            fact=_("Looks unlike the scans that it was learned from."),
            advice=_("Disease, metal, surgery or another kind of scan can be the cause; check the whole outline."),
        ),
        "decoders_disagree": CheckText(
            title=_("tasks disagree"),
            fact=_("The tasks that know it draw it differently."),
            advice=_("Look at the outline here, where they disagree most."),
        ),
        "volume_unusual": CheckText(
            title=_("unusual volume"),
            fact=_("Is much smaller or larger than usual."),
            advice=_("Look whether a part is missing or too much is included."),
        ),
        "wrong_side": CheckText(
            title=_("side doubtful"),
            fact=_("May lie on the wrong side of the body."),
            advice=_("Look whether left and right are swapped."),
        ),
        "order_broken": CheckText(
            title=_("order doubtful"),
            fact=_("Is out of order among the vertebrae or ribs."),
            advice=_("Count them from one that you are sure of."),
        ),
        "renumbered": CheckText(
            title=_("numbered anew"),
            fact=_("Got another number from the order of the bones."),
            advice=_("Count them from one that you are sure of."),
        ),
    }


def checkText(flag: str) -> CheckText:
    """``flag`` in words; one of a newer engine, which is missing here, as the engine calls it, made readable."""
    words = flag.replace("_", " ").strip()
    readable = words[:1].upper() + words[1:]
    return checkTexts().get(flag, CheckText(title=readable, fact=f"{readable}."))


def sentences(check: OrganCheck) -> str:
    """Why to look at an organ: what the engine has measured, or else the fact alone, and what to look at."""
    text = checkText(check.flag)
    measured = f"{check.reason[:1].upper()}{check.reason[1:]}." if check.reason else text.fact
    return f"{measured} {text.advice}".strip()
