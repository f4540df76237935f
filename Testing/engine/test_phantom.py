"""The synthetic body: human, repeatable, and what it says it is."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from scipy import ndimage

from wbcss.catalogue import catalogue
from wbcss.errors import Cancelled, InputError
from wbcss.phantom import BodyPlan, Phantom, make_phantom, painter
from wbcss.phantom.looks import palette
from wbcss.phantom.make import anatomy

VERTEBRAE = [*(f"C{n}" for n in range(1, 8)), *(f"T{n}" for n in range(1, 13)), *(f"L{n}" for n in range(1, 6)), "S1"]
AIRY = ("lung_", "trachea", "colon", "stomach", "skull", "larynx", "small_bowel", "duodenum", "esophagus")

# Loose adult ranges in milliliters; the body of a seed is small or large, and an organ of it too.
VOLUMES_ML = {
    "liver": (900, 2500), "spleen": (80, 350), "kidney_left": (80, 260), "kidney_right": (70, 260),
    "pancreas": (35, 130), "gallbladder": (8, 60), "stomach": (200, 800), "urinary_bladder": (60, 400),
    "prostate": (12, 60), "heart": (400, 900), "aorta": (120, 350), "inferior_vena_cava": (50, 180),
    "brain": (1050, 1800), "skull": (450, 1000), "colon": (400, 1500), "small_bowel": (300, 1300),
    "vertebrae_L3": (30, 90), "vertebrae_T6": (14, 45), "hip_left": (220, 550), "femur_right": (300, 700),
    "sacrum": (120, 350), "sternum": (35, 130), "trachea": (20, 80), "esophagus": (12, 60), "spinal_cord": (30, 110),
    "gluteus_maximus_left": (450, 1400), "autochthon_right": (450, 1300), "iliopsoas_left": (250, 800),
    "lung_upper_lobe_left": (500, 1700), "lung_middle_lobe_right": (120, 600), "rib_left_6": (10, 45),
    "thyroid_gland": (6, 30), "eye_left": (4, 12), "parotid_gland_right": (10, 45), "humerus_left": (100, 320),
}  # fmt: skip

# Mean HU of the body of seed 1, which was scanned in the portal venous phase.
MEANS_HU = {
    "liver": (95, 130), "spleen": (105, 140), "kidney_left": (140, 210), "pancreas": (70, 120), "aorta": (135, 170),
    "portal_vein_and_splenic_vein": (140, 185), "urinary_bladder": (-5, 30), "gallbladder": (-5, 35),
    "brain": (20, 45), "spinal_cord": (20, 60), "heart": (100, 150), "gluteus_maximus_left": (45, 65),
    "autochthon_right": (45, 65), "vertebrae_L3": (150, 420), "hip_left": (300, 700), "femur_left": (350, 900),
    "skull": (450, 1100), "rib_left_6": (250, 700), "sternum": (100, 400), "lung_upper_lobe_left": (-900, -700),
    "lung_lower_lobe_right": (-900, -700), "trachea": (-1000, -450), "intervertebral_discs": (50, 130),
    "costal_cartilages": (60, 160), "prostate": (50, 95), "thyroid_gland": (110, 180), "eye_left": (0, 60),
    "adrenal_gland_left": (20, 90),
}  # fmt: skip


@pytest.fixture(scope="module")
def body() -> Phantom:
    """A whole body with hanging arms; never changed."""
    return make_phantom(seed=1, spacing_mm=(5.0, 5.0, 5.0))


@pytest.fixture(scope="module")
def volumes_ml(body: Phantom) -> dict[str, float]:
    """Volume of every organ of ``body``."""
    counts = np.bincount(body.labels.ravel(), minlength=1000)
    return {organ.name: float(counts[organ.label]) * 0.125 for organ in body.organs}


@pytest.fixture(scope="module")
def centers_ras_mm(body: Phantom) -> dict[str, np.ndarray]:
    """Center of mass of every organ of ``body``."""
    values = [organ.label for organ in body.organs]
    found = ndimage.center_of_mass(np.ones(body.labels.shape, np.uint8), body.labels, values)
    affine = body.volume.affine
    return {o.name: affine[:3, :3] @ c + affine[:3, 3] for o, c in zip(body.organs, found, strict=True)}


def _crops(body: Phantom) -> Iterator[tuple[str, tuple[slice, slice, slice], np.ndarray]]:
    """Name, bounding box and mask in it of every organ."""
    boxes = ndimage.find_objects(body.labels)
    for organ in body.organs:
        box = boxes[organ.label - 1]
        yield organ.name, box, body.labels[box] == organ.label


def test_the_same_seed_gives_the_same_bytes() -> None:
    once, again = (make_phantom("head_neck", seed=4, spacing_mm=(7.0, 7.0, 7.0)) for _ in range(2))
    assert once.volume.voxels.tobytes() == again.volume.voxels.tobytes()
    assert once.labels.tobytes() == again.labels.tobytes()
    assert np.array_equal(once.volume.affine, again.volume.affine)


def test_another_seed_gives_another_body() -> None:
    plans = [BodyPlan.draw(seed) for seed in range(12)]
    for name in ("scale", "fat_mm", "noise_hu", "breath_mm", "lean_rad", "curve_mm"):
        assert len({getattr(plan, name) for plan in plans}) == 12
    assert {plan.phase for plan in plans} == {"native", "arterial", "portal"}
    assert {plan.arms for plan in plans} == {"down", "up", "none"}
    assert plans[0].jitter("liver") != plans[1].jitter("liver") != plans[1].jitter("spleen")
    a, b = (make_phantom("head_neck", seed=seed, spacing_mm=(9.0, 9.0, 9.0)) for seed in (4, 5))
    assert a.labels.shape != b.labels.shape or not np.array_equal(a.labels, b.labels)


def test_bodies_are_as_unlike_as_adults() -> None:
    plans = [BodyPlan.draw(seed) for seed in range(200)]
    stature_m = [1.72 * plan.scale[2] for plan in plans]
    assert 1.5 < min(stature_m) < 1.6
    assert 1.82 < max(stature_m) < 1.95
    assert min(plan.fat_mm for plan in plans) < 10
    assert max(plan.fat_mm for plan in plans) > 30


def test_a_whole_body_has_its_organs_under_their_catalogue_labels(body: Phantom) -> None:
    organs = catalogue()
    assert len(body.organs) >= 150
    assert all(organs[organ.name] == organ for organ in body.organs)
    assert set(np.unique(body.labels).tolist()) == {0} | {organ.label for organ in body.organs}
    missing = {o.name for o in organs.values() if o.label <= 117} - {organ.name for organ in body.organs}
    assert missing <= {"kidney_cyst_left", "kidney_cyst_right"}


@pytest.mark.parametrize("seed", range(8))
def test_every_body_is_made_of_catalogue_organs_and_known_tissues(seed: int) -> None:
    plan = BodyPlan.draw(seed)
    parts = anatomy(plan)
    known = catalogue()
    assert {part.organ for part in parts if part.organ} <= set(known)
    assert {name for part in parts for name in part.over} <= set(known)
    assert {part.look for part in parts} <= set(palette(plan.phase))
    arms = {part.organ for part in parts} & {"humerus_left", "ulna_right", "carpal_left"}
    assert bool(arms) == (plan.arms != "none")


def test_organs_have_adult_volumes(volumes_ml: dict[str, float]) -> None:
    outside = {
        name: volumes_ml[name] for name, (low, high) in VOLUMES_ML.items() if not low <= volumes_ml[name] <= high
    }
    assert not outside
    lungs = sum(ml for name, ml in volumes_ml.items() if name.startswith("lung_"))
    assert 2200 < lungs < 7000


def test_tissues_have_their_hounsfield_units(body: Phantom) -> None:
    means = {name: float(body.volume.voxels[box][mask].mean()) for name, box, mask in _crops(body)}
    assert body.plan.phase == "portal"
    assert not {name: means[name] for name, (low, high) in MEANS_HU.items() if not low <= means[name] <= high}


def test_contrast_reaches_arteries_first_and_the_liver_later() -> None:
    native, arterial, portal = (palette(phase) for phase in ("native", "arterial", "portal"))
    assert native["aorta"].hu < portal["aorta"].hu < arterial["aorta"].hu
    assert native["liver"].hu < arterial["liver"].hu < portal["liver"].hu
    assert native["portal_vein"].hu < arterial["portal_vein"].hu < portal["portal_vein"].hu
    assert native["bladder"] == portal["bladder"]


def test_every_organ_lies_within_the_body(body: Phantom) -> None:
    tissue = body.volume.voxels > -400
    tissue[:, : _couch_rows(body)] = False
    inside = np.stack([ndimage.binary_fill_holes(tissue[:, :, k]) for k in range(tissue.shape[2])], axis=2)
    inside = ndimage.binary_dilation(inside)
    for name, box, mask in _crops(body):
        assert inside[box][mask].mean() > 0.97, name


def _couch_rows(body: Phantom) -> int:
    """Rows from the back that hold the couch: it lies below the lowest label by more than a finger's breadth."""
    return int(np.nonzero(body.labels.any(axis=(0, 2)))[0][0]) - 4


def test_solid_organs_hold_no_air(body: Phantom) -> None:
    for name, box, mask in _crops(body):
        if not name.startswith(AIRY):
            assert np.percentile(body.volume.voxels[box][mask], 10) > -250, name


def test_the_patient_lies_on_a_couch_in_air(body: Phantom) -> None:
    voxels, rows = body.volume.voxels, _couch_rows(body)
    assert (voxels[:, :rows] > -500).mean() > 0.02
    corner = voxels[:4, -4:, :4]
    assert -1024 <= corner.mean() < -960
    assert corner.std() > 0


def test_left_lies_at_smaller_x_than_right(centers_ras_mm: dict[str, np.ndarray]) -> None:
    pairs = [
        (name, name.replace("_left", "_right"))
        for name in centers_ras_mm
        if "_left" in name and name.replace("_left", "_right") in centers_ras_mm
    ]
    assert len(pairs) > 40
    wrong = [left for left, right in pairs if not centers_ras_mm[left][0] < centers_ras_mm[right][0] - 5]
    assert not wrong


def test_unpaired_organs_lie_on_their_side(centers_ras_mm: dict[str, np.ndarray]) -> None:
    middle = centers_ras_mm["vertebrae_L1"][0]
    for name in ("liver", "gallbladder", "inferior_vena_cava", "superior_vena_cava", "duodenum"):
        assert centers_ras_mm[name][0] > middle + 5, name
    for name in ("spleen", "stomach", "heart", "pulmonary_artery"):
        assert centers_ras_mm[name][0] < middle - 5, name


def test_front_and_back_are_in_order(centers_ras_mm: dict[str, np.ndarray]) -> None:
    order = ["autochthon_left", "vertebrae_T8", "esophagus", "heart", "sternum"]
    ys = [centers_ras_mm[name][1] for name in order]
    assert ys == sorted(ys)
    assert centers_ras_mm["kidney_left"][1] < centers_ras_mm["small_bowel"][1]
    assert centers_ras_mm["sacrum"][1] < centers_ras_mm["urinary_bladder"][1]


def test_vertebrae_and_ribs_descend_in_order(centers_ras_mm: dict[str, np.ndarray]) -> None:
    zs = [centers_ras_mm[f"vertebrae_{name}"][2] for name in VERTEBRAE]
    steps = -np.diff(zs)
    assert (steps > 10).all()
    assert (steps < 50).all()
    for side in ("left", "right"):
        ribs = [centers_ras_mm[f"rib_{side}_{n}"][2] for n in range(1, 13)]
        assert (np.diff(ribs) < 0).all()


def test_head_to_foot_is_in_order(centers_ras_mm: dict[str, np.ndarray]) -> None:
    order = ["brain", "tongue", "thyroid_gland", "heart", "liver", "kidney_right", "urinary_bladder", "patella_left"]
    zs = [centers_ras_mm[name][2] for name in [*order, "tarsal_left"]]
    assert zs == sorted(zs, reverse=True)


def test_organs_are_in_one_piece(body: Phantom, volumes_ml: dict[str, float]) -> None:
    bones = ("phalanges", "carpal", "tarsal", "metacarpal", "metatarsal")
    several = ("pulmonary_vein", "costal_cartilages", "intervertebral_discs", *bones)
    broken = []
    for name, _, mask in _crops(body):
        if volumes_ml[name] > 5 and not name.startswith(several):
            pieces, _ = ndimage.label(mask, structure=np.ones((3, 3, 3)))
            if np.bincount(pieces.ravel())[1:].max() < 0.85 * mask.sum():
                broken.append(name)
    assert not broken


@pytest.mark.parametrize(
    ("region", "present", "absent"),
    [
        (
            "chest",
            {"heart", "lung_lower_lobe_right", "sternum", "rib_left_5"},
            {"brain", "urinary_bladder", "hip_left"},
        ),
        ("abdomen", {"liver", "vertebrae_L3", "urinary_bladder", "hip_right"}, {"brain", "trachea", "patella_left"}),
        ("head_neck", {"brain", "skull", "thyroid_gland", "vertebrae_C3"}, {"liver", "heart", "spleen"}),
    ],
)
def test_a_region_is_cut_from_the_whole_body(region: str, present: set[str], absent: set[str], body: Phantom) -> None:
    part = make_phantom(region, seed=1, spacing_mm=(5.0, 5.0, 5.0))  # type: ignore[arg-type]
    names = {organ.name for organ in part.organs}
    assert present <= names
    assert not absent & names
    offset = (part.volume.affine[:3, 3] - body.volume.affine[:3, 3]) / 5.0
    assert np.array_equal(offset, np.rint(offset))
    cut, whole = part.labels, body.labels
    for axis, start in enumerate(offset.astype(int)):
        low, high = max(0, start), min(whole.shape[axis], start + cut.shape[axis])
        whole = np.take(whole, range(low, high), axis=axis)
        cut = np.take(cut, range(low - start, high - start), axis=axis)
    assert np.array_equal(cut, whole)
    assert cut.size > 0.8 * part.labels.size


def test_the_spacing_asked_for_is_kept() -> None:
    phantom = make_phantom("head_neck", seed=3, spacing_mm=(4.0, 6.0, 9.0))
    assert phantom.volume.spacing_mm == (4.0, 6.0, 9.0)
    assert phantom.volume.voxels.dtype == np.int16
    assert phantom.labels.shape == phantom.volume.shape
    size_mm = phantom.volume.size_mm
    fine = make_phantom("head_neck", seed=3, spacing_mm=(8.0, 8.0, 8.0)).volume.size_mm
    assert np.allclose(size_mm, fine, atol=18)


def test_the_result_does_not_depend_on_how_many_slices_are_drawn_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = make_phantom("abdomen", seed=2, spacing_mm=(14.0, 14.0, 10.0))
    monkeypatch.setattr(painter, "_CHUNK_VOXELS", 7 * whole.labels[:, :, 0].size)
    parts = make_phantom("abdomen", seed=2, spacing_mm=(14.0, 14.0, 10.0))
    assert np.array_equal(whole.labels, parts.labels)
    assert np.array_equal(whole.volume.voxels, parts.volume.voxels)


def test_unusable_requests_are_refused_by_value() -> None:
    with pytest.raises(InputError, match="region must be whole, chest, head_neck, abdomen, got 'knee'"):
        make_phantom("knee")  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"seed must be 0.*got -3"):
        make_phantom(seed=-3)
    with pytest.raises(InputError, match=r"spacing must be 0.5 to 20 mm on every axis, got \(3.0, 0.1, 3.0\)"):
        make_phantom(spacing_mm=(3.0, 0.1, 3.0))
    with pytest.raises(InputError, match=r"spacing must be .*got \(nan, 3.0, 3.0\)"):
        make_phantom(spacing_mm=(float("nan"), 3.0, 3.0))
    with pytest.raises(InputError, match=r"spacing of \(0.5, 0.5, 0.5\) mm makes the whole phantom larger than"):
        make_phantom(spacing_mm=(0.5, 0.5, 0.5))


def test_drawing_reports_progress_and_stops_when_asked() -> None:
    told: list[float] = []
    make_phantom("head_neck", spacing_mm=(12.0, 12.0, 12.0), progress=lambda fraction, _stage: told.append(fraction))
    assert told[0] == 0.0
    assert told[-1] == 1.0
    with pytest.raises(Cancelled):
        make_phantom("head_neck", spacing_mm=(12.0, 12.0, 12.0), cancelled=lambda: True)
