"""What a small decoder is told by a large one on the same frozen encoder: soft answers and directions of features.

METHOD 1.3: L = L_seg + a T^2 KL(teacher_T || student_T) + b sum_l || P_l(F_s) / |P_l(F_s)| - F_t / |F_t| ||^2.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.nn import functional as F

from wbcss.errors import SpecError


def voxel_weights(labels: torch.Tensor, *, foreground: float, boundary: float) -> torch.Tensor:
    """What voxels count in ``voxel_kl``: 1, ``foreground`` more in an organ, ``boundary`` more beside another label.

    The border of a patch is no boundary, so that cutting a scan into patches changes no weight but at the cuts.

    Args:
        labels: (B, I, J, K) channel labels.
        foreground, boundary: At least 0.

    Returns:
        (B, I, J, K) float32.
    """
    beside = torch.zeros_like(labels, dtype=torch.bool)
    for axis in (1, 2, 3):
        rest = labels.shape[axis] - 1
        differs = labels.narrow(axis, 1, rest) != labels.narrow(axis, 0, rest)
        beside.narrow(axis, 1, rest).logical_or_(differs)
        beside.narrow(axis, 0, rest).logical_or_(differs)
    return 1.0 + foreground * (labels > 0).float() + boundary * beside.float()


def voxel_kl(
    student: torch.Tensor, teacher: torch.Tensor, weights: torch.Tensor, *, temperature: float
) -> torch.Tensor:
    """T^2 times the weighted mean over voxels of KL(teacher_T || student_T) (Hinton et al., arXiv 1503.02531, sec. 2).

    A mean over voxels: summed, as the ``batchmean`` of torch does, it would grow with the patch. T^2 keeps the size of
    the gradient independent of the temperature.

    Args:
        student, teacher: Logits (B, C, N); no gradient goes to the teacher.
        weights: (B, N), positive.
        temperature: T, positive.
    """
    ours = F.log_softmax(student.float() / temperature, dim=1)
    theirs = F.log_softmax(teacher.detach().float() / temperature, dim=1)
    each = F.kl_div(ours, theirs, reduction="none", log_target=True).sum(dim=1)
    return temperature**2 * (weights * each).sum() / weights.sum()


def feature_loss(student: Sequence[torch.Tensor], teacher: Sequence[torch.Tensor]) -> torch.Tensor:
    """Sum over the levels of ``|| s / |s| - t / |t| ||^2``, mean over the batch; each term lies in [0, 4].

    A level of one sample is one long vector, as in attention transfer (Zagoruyko and Komodakis, ICLR 2017, equation
    2): where the teacher answers strongly counts most, and the value does not depend on the size of a patch.

    Args:
        student: Levels (B, F_l, I_l, J_l, K_l), already projected to the widths of the teacher.
        teacher: The same of the teacher; no gradient goes there.

    Raises:
        SpecError: the two do not have the same levels.
    """
    if [level.shape for level in student] != [level.shape for level in teacher] or not student:
        raise SpecError(
            "features to imitate must have the same levels, at least one, "
            f"got {[tuple(level.shape) for level in student]} and {[tuple(level.shape) for level in teacher]}"
        )
    total = torch.zeros((), device=student[0].device)
    for ours, theirs in zip(student, teacher, strict=True):
        apart = _direction(ours) - _direction(theirs.detach())
        total = total + apart.square().sum(dim=1).mean()
    return total


def _direction(level: torch.Tensor) -> torch.Tensor:
    """(B, F, I, J, K) as (B, F I J K) of length 1."""
    return F.normalize(level.float().flatten(1), dim=1)
