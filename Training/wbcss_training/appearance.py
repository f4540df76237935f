"""From tissue labels to Hounsfield units: contrast phase, texture, partial volume, scanner, metal and couch."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional as F

from wbcss.volume import Shape3

from .atlas import FIELD_UNIT_MM, AtlasLabel
from .deformation import smooth_field

AIR_HU = -1000.0
_FAMILY = re.compile(r"_(left|right|upper|middle|lower|[CTLS]\d+|\d+)\b.*|_(left|right)_.*")
_LUNG = re.compile(r"^lung_(upper|middle|lower)_lobe")
_GAS = re.compile(r"^bowel_gas")
_CONTENT = re.compile(r"^bowel_content")


@dataclass(frozen=True, eq=False)
class TissueTable:
    """The atlas table as arrays indexed by atlas label.

    Attributes:
        family: Index of the group whose members share one offset (left and right, all vertebrae ...).
    """

    mean_hu: npt.NDArray[np.float32]
    sd_hu: npt.NDArray[np.float32]
    arterial_hu: npt.NDArray[np.float32]
    portal_hu: npt.NDArray[np.float32]
    family: npt.NDArray[np.int64]
    bone: npt.NDArray[np.bool_]
    long_bone: npt.NDArray[np.bool_]
    lung: npt.NDArray[np.bool_]
    gas_labels: tuple[int, ...]
    content_labels: tuple[int, ...]
    bladder_label: int

    @classmethod
    def from_atlas(cls, table: Mapping[int, AtlasLabel]) -> TissueTable:
        size = max(table) + 1
        mean_hu, sd_hu, arterial_hu, portal_hu = (np.zeros(size, np.float32) for _ in range(4))
        bone, long_bone, lung = (np.zeros(size, bool) for _ in range(3))
        family = np.zeros(size, np.int64)
        families: dict[str, int] = {}
        mean_hu[0] = AIR_HU
        for label, row in table.items():
            mean_hu[label], sd_hu[label] = row.hu_mean, row.hu_sd
            arterial_hu[label], portal_hu[label] = row.enhancement_arterial_hu, row.enhancement_portal_hu
            family[label] = families.setdefault(_FAMILY.sub("", row.name), len(families) + 1)
            bone[label] = row.is_bone
            long_bone[label] = row.is_long_bone
            lung[label] = bool(_LUNG.match(row.name))
        named = {row.name: label for label, row in table.items()}
        return cls(
            mean_hu=mean_hu,
            sd_hu=sd_hu,
            arterial_hu=arterial_hu,
            portal_hu=portal_hu,
            family=family,
            bone=bone,
            long_bone=long_bone,
            lung=lung,
            gas_labels=tuple(v for n, v in named.items() if _GAS.match(n)),
            content_labels=tuple(v for n, v in named.items() if _CONTENT.match(n)),
            bladder_label=named.get("urinary_bladder", 0),
        )


def draw_mean_hu(tissues: TissueTable, rng: np.random.Generator) -> npt.NDArray[np.float32]:
    """Mean HU of every atlas label in one synthetic subject and scan."""
    num_families = int(tissues.family.max()) + 1
    wild = rng.random() < 0.15  # sometimes far from the table: the table is one man's scan and the literature
    spread = np.where(np.abs(tissues.mean_hu) < 200, 25.0 if wild else 9.0, 0.07 * np.abs(tissues.mean_hu))
    spread = np.where(tissues.mean_hu < -700, 35.0, spread)
    family_offset = rng.standard_normal(num_families)[tissues.family]
    own_offset = rng.standard_normal(len(tissues.mean_hu))
    mean = tissues.mean_hu + spread * (family_offset + 0.3 * own_offset)
    phase = rng.choice(["none", "arterial", "portal", "mixed"], p=[0.4, 0.15, 0.3, 0.15])
    arterial, portal = {"none": (0, 0), "arterial": (1, 0.1), "portal": (0.1, 1), "mixed": (0.5, 0.6)}[str(phase)]
    strength = rng.uniform(0.5, 1.3) * (1 + 0.1 * rng.standard_normal(len(mean)))
    mean += strength * (arterial * tissues.arterial_hu + portal * tissues.portal_hu)
    _draw_contents(mean, tissues, rng, contrast=phase != "none")
    mean[0] = rng.uniform(-1010, -980)
    return mean.astype(np.float32)


def _draw_contents(
    mean: npt.NDArray[np.floating], tissues: TissueTable, rng: np.random.Generator, *, contrast: bool
) -> None:
    """Bowel holds gas, fluid, stool or oral contrast in any mix; the bladder sometimes holds excreted contrast."""
    for label in (*tissues.gas_labels, *tissues.content_labels):
        was_gas = label in tissues.gas_labels
        kind = rng.choice(
            ["gas", "fluid", "soft", "contrast"], p=[0.55, 0.2, 0.2, 0.05] if was_gas else [0.1, 0.4, 0.4, 0.1]
        )
        mean[label] = {
            "gas": rng.uniform(-990, -750),
            "fluid": rng.uniform(-5, 30),
            "soft": rng.uniform(-60, 70),
            "contrast": rng.uniform(120, 450),
        }[str(kind)]
    if tissues.bladder_label and contrast and rng.random() < 0.25:
        mean[tissues.bladder_label] = rng.uniform(60, 500)


def paint_hu(
    labels: torch.Tensor,
    bone_depth: torch.Tensor,
    spongy_end: torch.Tensor,
    *,
    tissues: TissueTable,
    spacing_mm: float,
    rng: np.random.Generator,
) -> torch.Tensor:
    """HU (I, J, K) of atlas labels before the scanner: organ means, bone cortex and marrow, texture.

    Args:
        labels: (I, J, K) int64 atlas labels.
        bone_depth: (I, J, K) uint8 depth below the bone surface in FIELD_UNIT_MM.
        spongy_end: (I, J, K) bool, the ends of long bones.
    """
    mean = draw_mean_hu(tissues, rng)
    hu = torch.from_numpy(mean)[labels]
    shape = (labels.shape[0], labels.shape[1], labels.shape[2])
    long_bone = torch.from_numpy(tissues.long_bone)[labels] & ~spongy_end
    dense = torch.from_numpy(mean > 500)[labels]
    thick = torch.where(long_bone | dense, 4.0, 1.2) * float(rng.uniform(0.7, 1.3))
    cortex = torch.where(long_bone, 1150.0, torch.where(dense, 1050.0, 460.0)) * float(rng.uniform(0.75, 1.2))
    spongy = hu * float(rng.uniform(0.35, 0.95))
    marrow = torch.where(long_bone, float(rng.uniform(-40, 120)), torch.where(dense, 450.0, spongy))
    inward = torch.sigmoid((bone_depth.float() * FIELD_UNIT_MM - spacing_mm / 3 - thick) / (0.4 * spacing_mm))
    bone = torch.from_numpy(tissues.bone)[labels]
    hu = torch.where(bone, cortex + (marrow - cortex) * inward, hu)
    sd = torch.from_numpy(tissues.sd_hu)[labels]
    fine = torch.from_numpy(rng.standard_normal(shape, dtype=np.float32))
    slow = smooth_field(shape, knots_every=9.0 / spacing_mm, rng=rng)[0]
    hu += sd * (float(rng.uniform(0.2, 0.6)) * fine + float(rng.uniform(0.2, 0.6)) * slow)
    _mottle_stool(hu, labels, tissues=tissues, spacing_mm=spacing_mm, rng=rng)
    lung = torch.from_numpy(tissues.lung)[labels]
    gravity = torch.linspace(float(rng.uniform(0, 90)), 0, shape[1])[None, :, None]  # dependent lung is denser
    hu += torch.where(lung, gravity + float(rng.uniform(0, 40)) * slow, torch.zeros(()))
    return hu


def _mottle_stool(
    hu: torch.Tensor, labels: torch.Tensor, *, tissues: TissueTable, spacing_mm: float, rng: np.random.Generator
) -> None:
    """Stool holds bubbles of gas: sometimes, in place, in what fills the bowel."""
    if rng.random() < 0.5:
        return
    content = torch.zeros(len(tissues.mean_hu), dtype=torch.bool)
    content[list(tissues.content_labels)] = True
    shape = (labels.shape[0], labels.shape[1], labels.shape[2])
    bubbles = smooth_field(shape, knots_every=7.0 / spacing_mm, rng=rng)[0] > float(rng.uniform(0.2, 1.2))
    hu[content[labels] & bubbles] = float(rng.uniform(-900, -200))


def gaussian_blur(volume: torch.Tensor, sigma_voxels: tuple[float, float, float]) -> torch.Tensor:
    """Separable Gaussian blur of (I, J, K) with edges repeated; axes of sigma below 0.2 voxels are left alone."""
    out = volume[None, None]
    for axis, sigma in enumerate(sigma_voxels):
        if sigma < 0.2:
            continue
        radius = max(1, int(np.ceil(2.5 * sigma)))
        taps = torch.exp(-0.5 * (torch.arange(-radius, radius + 1) / sigma) ** 2)
        shape = [1, 1, 1, 1, 1]
        shape[axis + 2] = -1
        padding = [0] * 6
        padding[2 * (2 - axis)] = padding[2 * (2 - axis) + 1] = radius
        out = F.conv3d(F.pad(out, padding, mode="replicate"), (taps / taps.sum()).reshape(shape))
    return out[0, 0]


def add_metal(hu: torch.Tensor, inside: torch.Tensor, *, rng: np.random.Generator) -> torch.Tensor:
    """An implant of a few voxels in the body, with dark and bright streaks in its slices."""
    sites = torch.nonzero(inside)
    if len(sites) == 0:
        return hu
    center = sites[int(rng.integers(len(sites)))].float()
    axes = [torch.arange(n, dtype=torch.float32) - c for n, c in zip(hu.shape, center, strict=True)]
    radius, half_length = float(rng.uniform(0.8, 2.5)), float(rng.uniform(1, 10))
    distance = torch.sqrt(axes[0][:, None] ** 2 + axes[1][None, :] ** 2)
    angle = torch.atan2(axes[1][None, :].expand_as(distance), axes[0][:, None].expand_as(distance))
    spokes = torch.sin(angle * int(rng.integers(2, 7)) + float(rng.uniform(0, 6.3)))
    streaks = float(rng.uniform(60, 350)) * spokes / (1 + distance / 6)
    along = axes[2].abs() <= half_length
    hu = hu + streaks[:, :, None] * along * inside
    implant = (distance[:, :, None] <= radius) & along
    return torch.where(implant, torch.full((), float(rng.uniform(1800, 3500))), hu)


def scan(hu: torch.Tensor, *, spacing_mm: float, rng: np.random.Generator) -> torch.Tensor:
    """What the scanner makes of ``hu``: point spread, thick slices, sharp kernels, noise that grows inside the body."""
    in_plane = rng.uniform(0.5, 1.8) / spacing_mm
    through = rng.uniform(0.4, 1.2) * rng.choice([1.0, 1.7, 2.6], p=[0.6, 0.25, 0.15]) / spacing_mm
    out = gaussian_blur(hu, (in_plane, in_plane, through))
    if rng.random() < 0.25:
        out = out + float(rng.uniform(0.2, 0.8)) * (out - gaussian_blur(out, (0.8, 0.8, 0.4)))
    if rng.random() < 0.15:  # slices thicker than the grid: neighbors share one slice
        out = out[:, :, ::2].repeat_interleave(2, dim=2)[:, :, : out.shape[2]]
    shape: Shape3 = (out.shape[0], out.shape[1], out.shape[2])
    noise = torch.from_numpy(rng.standard_normal(shape, dtype=np.float32))
    if rng.random() < 0.7:
        noise = gaussian_blur(noise, (0.5, 0.5, 0.3)) * 1.8
    dose_hu = float(np.exp(rng.uniform(np.log(3), np.log(35))))
    body = F.avg_pool3d((out > -400).float()[None, None], 8, ceil_mode=True)
    attenuation = F.interpolate(body, size=shape, mode="trilinear", align_corners=False)[0, 0]
    return out + dose_hu * (0.4 + 0.8 * attenuation) * noise
