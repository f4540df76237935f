"""Small CT volumes as files, written by nibabel and SimpleITK, for tests of what reads them."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
import numpy.typing as npt
import SimpleITK

LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
AFFINE = np.array([[-0.7, 0, 0, 90.5], [0, 0.9, 0, -120], [0, 0, 2.5, -300], [0, 0, 0, 1]])


def ct(rng: np.random.Generator, shape: tuple[int, ...] = (5, 4, 3)) -> npt.NDArray[np.int16]:
    return rng.integers(-1024, 2000, shape).astype(np.int16)


def save_nifti(path: Path, array: npt.NDArray[np.generic], affine: npt.NDArray[np.float64] = AFFINE) -> Path:
    nibabel.save(nibabel.Nifti1Image(array, affine), path)
    return path


def save_itk(path: Path, array: npt.NDArray[np.generic], affine: npt.NDArray[np.float64] = AFFINE) -> Path:
    image = SimpleITK.GetImageFromArray(np.ascontiguousarray(array.T))
    lps = LPS @ affine
    spacing = np.linalg.norm(lps[:3, :3], axis=0)
    image.SetSpacing(spacing.tolist())
    image.SetDirection((lps[:3, :3] / spacing).ravel().tolist())
    image.SetOrigin(lps[:3, 3].tolist())
    SimpleITK.WriteImage(image, str(path), path.name.startswith("packed"))
    return path
