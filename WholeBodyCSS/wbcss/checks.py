"""*Please check*: what a reader should look at, why in his words, and where. No voxel is read here."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median

from .catalogue import Organ
from .labels import OrganName
from .lesions import is_lesion
from .numbering import VERTEBRAE, out_of_order

Place = tuple[float, float, float]

MANY_BY_NATURE = frozenset(
    {
        "carpal", "coronary_arteries", "costal_cartilages", "extraocular_muscles", "infrahyoid_muscles",
        "intercostal_muscles", "intervertebral_discs", "metacarpal", "metatarsal", "phalanges_feet", "phalanges_hand",
        "prevertebral_muscles", "pulmonary_vein", "scalenus", "tarsal", "teeth_lower", "teeth_upper",
    }
)  # fmt: skip
"""Organs, without their side, that are several pieces in everybody. So are lesions, by their group."""

MIDLINE = (*VERTEBRAE, OrganName("sacrum"), OrganName("spinal_cord"), OrganName("sternum"), OrganName("brainstem"))


@dataclass(frozen=True, kw_only=True)
class CheckRules:
    """Thresholds of the checks.

    Attributes:
        low_confidence: An organ less sure than this on average is flagged, if its task's card does not say what is
            usual for it; 0.5 is a toss-up.
        confidence_alarm_rate: Share of healthy organs that are flagged as less sure than usual, where the card says it.
        min_piece_ml, min_piece_fraction: A piece counts when it has this volume and this share of the organ: smaller
            crumbs are noise, not a second organ.
        low_agreement: Decoders disagree about an organ when the mean Dice of the owner's claim with theirs is below.
        volume_alarm_rate: Share of healthy organs whose volume is called unusual, if volumes are log-normal.
        volume_cases: Cases that a range of volumes, or of confidences, needs.
        midline_mm: A left organ without its right one is on the wrong side when it is this far right of the midline.

    How far an organ may be from the training data is on its task's card, with the false-alarm rate it was chosen for.
    """

    low_confidence: float = 0.6
    confidence_alarm_rate: float = 0.05
    min_piece_ml: float = 1.0
    min_piece_fraction: float = 0.05
    low_agreement: float = 0.7
    volume_alarm_rate: float = 0.01
    volume_cases: int = 5
    midline_mm: float = 20.0


@dataclass(frozen=True, kw_only=True)
class Check:
    """One reason to look at an organ.

    Attributes:
        flag: Short name, for machines.
        reason: One clause for a person.
        place_ras_mm: Where to look; None where there is no such place.
    """

    flag: str
    reason: str
    place_ras_mm: Place | None = None


@dataclass(frozen=True, kw_only=True)
class OrganFacts:
    """What a run knows of an organ beyond its voxels. What is not known is None.

    Attributes:
        anomaly: Distance to the training data over its threshold, minus 1; above 0 is unusual.
        agreement: Mean Dice of the claim of the task that speaks for it with the claims of the others.
        dispute_ras_mm: Where those disagree most.
        volume_range_ml: Volumes to be expected by the training cases.
        renumbered: What became this organ when bones were numbered anew.
        values: What speaks against the values of the whole scan; "" if nothing.
        least_confidence: Mean confidence that it is usually above, on scans like those of its task's card.
    """

    anomaly: float | None = None
    agreement: float | None = None
    dispute_ras_mm: Place | None = None
    volume_range_ml: tuple[float, float] | None = None
    renumbered: tuple[OrganName, ...] = ()
    values: str = ""
    least_confidence: float | None = None


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What a rule may look at: an organ that has voxels.

    Attributes:
        organ: Which.
        volume_ml: Its volume with the lesions that lie in it.
        mean_confidence: Of its voxels; None if there is none.
        center_ras_mm: Mean place of its voxels.
        top_mm: Largest S of its bounding box.
        border_ras_mm: Middle of its voxels on a face of the image; None if it reaches none.
        unsure_ras_mm: Where it is least sure; None without a confidence.
        pieces_ras_mm: Middles of its large pieces, the largest first.
        facts: What else is known.
        rules: Thresholds.
    """

    organ: Organ
    volume_ml: float
    mean_confidence: float | None
    center_ras_mm: Place
    top_mm: float
    border_ras_mm: Place | None
    unsure_ras_mm: Place | None
    pieces_ras_mm: tuple[Place, ...]
    facts: OrganFacts = field(default_factory=OrganFacts)
    rules: CheckRules = field(default_factory=CheckRules)


Rule = Callable[[Finding], "Check | None"]
"""Looks at one organ."""


def touches_border(finding: Finding) -> Check | None:
    """The organ is cut by the edge of the image: its volume is a lower bound."""
    if finding.border_ras_mm is None:
        return None
    reason = "reaches the edge of the image, so it may be cut off and its volume too small"
    return Check(flag="touches_border", reason=reason, place_ras_mm=finding.border_ras_mm)


def confidence_limit(facts: OrganFacts, rules: CheckRules) -> float:
    """Mean confidence below which an organ is flagged."""
    return rules.low_confidence if facts.least_confidence is None else facts.least_confidence


def low_confidence(finding: Finding) -> Check | None:
    """The mean confidence is below what is usual for the organ, or below the threshold where nobody knows that."""
    mean = finding.mean_confidence
    least = confidence_limit(finding.facts, finding.rules)
    if mean is None or mean >= least:
        return None
    usual = "below" if finding.facts.least_confidence is None else "usually above"
    reason = f"the network is unsure of it: mean confidence {mean:.2f}, {usual} {least:.2g}"
    return Check(flag="low_confidence", reason=reason, place_ras_mm=finding.unsure_ras_mm or finding.center_ras_mm)


def several_pieces(finding: Finding) -> Check | None:
    """The organ lies in several large pieces although in everybody it is one."""
    name = "_".join(part for part in finding.organ.name.split("_") if part != finding.organ.side)
    if is_lesion(finding.organ) or name in MANY_BY_NATURE or len(finding.pieces_ras_mm) < 2:
        return None
    reason = f"lies in {len(finding.pieces_ras_mm)} large pieces; the place is that of the second largest"
    return Check(flag="several_pieces", reason=reason, place_ras_mm=finding.pieces_ras_mm[1])


def unlike_training(finding: Finding) -> Check | None:
    """The organ looks unlike anything that its task was trained on."""
    anomaly = finding.facts.anomaly
    if anomaly is None or anomaly <= 0:
        return None
    reason = f"looks unlike the scans its task was trained on: {1 + anomaly:.1f} times the usual limit"
    return Check(flag="unlike_training", reason=reason, place_ras_mm=finding.center_ras_mm)


def decoders_disagree(finding: Finding) -> Check | None:
    """Several tasks know the organ and draw it differently."""
    agreement = finding.facts.agreement
    if agreement is None or agreement >= finding.rules.low_agreement:
        return None
    reason = f"the tasks that know it draw it differently: mean Dice {agreement:.2f} between them"
    return Check(
        flag="decoders_disagree", reason=reason, place_ras_mm=finding.facts.dispute_ras_mm or finding.center_ras_mm
    )


def volume_unusual(finding: Finding) -> Check | None:
    """The volume is outside what the training cases let expect; a cut organ is not judged."""
    known = finding.facts.volume_range_ml
    if known is None or finding.border_ras_mm is not None or known[0] <= finding.volume_ml <= known[1]:
        return None
    reason = f"has {finding.volume_ml:.1f} ml, where {known[0]:.1f} to {known[1]:.1f} ml are usual"
    return Check(flag="volume_unusual", reason=reason, place_ras_mm=finding.center_ras_mm)


def renumbered(finding: Finding) -> Check | None:
    """The number was changed by the order of the bones."""
    if not finding.facts.renumbered:
        return None
    reason = f"was numbered anew by the order of the bones; the network said {', '.join(finding.facts.renumbered)}"
    return Check(flag="renumbered", reason=reason, place_ras_mm=finding.center_ras_mm)


def values_doubtful(finding: Finding) -> Check | None:
    """The scan is no CT in Hounsfield units, so nothing that was found in it can be trusted."""
    if not finding.facts.values:
        return None
    reason = f"comes from a scan that does not look like a CT: {finding.facts.values}"
    return Check(flag="values_doubtful", reason=reason, place_ras_mm=finding.center_ras_mm)


RULES: tuple[Rule, ...] = (
    values_doubtful,
    touches_border,
    low_confidence,
    several_pieces,
    unlike_training,
    decoders_disagree,
    volume_unusual,
    renumbered,
)
"""Looked at in this order, organ by organ; ``compare_organs`` comes after them."""


def compare_organs(findings: Sequence[Finding]) -> Mapping[OrganName, tuple[Check, ...]]:
    """Checks that need the places of several organs: sides, and the order of vertebrae and ribs."""
    by_name = {finding.organ.name: finding for finding in findings}
    checks: dict[OrganName, list[Check]] = {}
    middles = [by_name[name].center_ras_mm[0] for name in MIDLINE if name in by_name]
    for finding in findings:
        check = _wrong_side(finding, by_name, median(middles) if middles else None)
        if check is not None:
            checks.setdefault(finding.organ.name, []).append(check)
    levels = {
        name: finding.center_ras_mm[2] if name in VERTEBRAE else finding.top_mm for name, finding in by_name.items()
    }
    for name, neighbor in out_of_order(levels).items():
        reason = f"is out of order along the body: its place contradicts {by_name[neighbor].organ.display_name}"
        place = by_name[name].center_ras_mm
        checks.setdefault(name, []).append(Check(flag="order_broken", reason=reason, place_ras_mm=place))
    return {name: tuple(found) for name, found in checks.items()}


def _wrong_side(finding: Finding, by_name: Mapping[OrganName, Finding], middle_mm: float | None) -> Check | None:
    """Whether a sided organ lies right of its right counterpart (or left of its left one), or beyond the midline."""
    side = finding.organ.side
    if side == "none" or is_lesion(finding.organ):
        return None
    opposite = "left" if side == "right" else "right"
    parts = [opposite if part == side else part for part in finding.organ.name.split("_")]
    other = by_name.get(OrganName("_".join(parts)))
    outwards = 1.0 if side == "right" else -1.0  # R grows to the patient's right
    place = finding.center_ras_mm
    if other is not None:
        if outwards * (place[0] - other.center_ras_mm[0]) >= 0:
            return None
        reason = f"lies further {opposite} than {other.organ.display_name}; sides may be swapped"
    else:
        if middle_mm is None or outwards * (place[0] - middle_mm) >= -finding.rules.midline_mm:
            return None
        reason = f"lies {opposite} of the midline"
    return Check(flag="wrong_side", reason=reason, place_ras_mm=place)
