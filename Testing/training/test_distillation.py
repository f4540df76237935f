"""Distillation losses against naive NumPy versions kept here, and law 9."""

from __future__ import annotations

import itertools

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from wbcss.errors import SpecError
from wbcss_training.distillation import feature_loss, voxel_kl, voxel_weights

Array = npt.NDArray[np.float64]


def naive_weights(labels: npt.NDArray[np.int64], *, foreground: float, boundary: float) -> Array:
    weights = np.ones(labels.shape)
    for b, i, j, k in np.ndindex(*labels.shape):
        weights[b, i, j, k] += foreground * (labels[b, i, j, k] > 0)
        for axis, step in itertools.product(range(3), (-1, 1)):
            place = [i, j, k]
            place[axis] += step
            if 0 <= place[axis] < labels.shape[1 + axis] and labels[b, i, j, k] != labels[(b, *place)]:
                weights[b, i, j, k] += boundary
                break
    return weights


def naive_kl(student: Array, teacher: Array, weights: Array, *, temperature: float) -> float:
    total = 0.0
    for b, n in np.ndindex(*weights.shape):
        p, q = (np.exp(logits[b, :, n] / temperature) for logits in (teacher, student))
        p, q = p / p.sum(), q / q.sum()
        total += weights[b, n] * (p * (np.log(p) - np.log(q))).sum()
    return float(temperature**2 * total / weights.sum())


def naive_feature_loss(student: list[Array], teacher: list[Array]) -> float:
    total = 0.0
    for ours, theirs in zip(student, teacher, strict=True):
        parts = []
        for s, t in zip(ours, theirs, strict=True):
            parts.append(((s / np.sqrt((s**2).sum()) - t / np.sqrt((t**2).sum())) ** 2).sum())
        total += float(np.mean(parts))
    return total


def levels(rng: np.random.Generator) -> list[Array]:
    return [rng.normal(size=(2, 3, 4, 4, 6)), rng.normal(size=(2, 5, 2, 2, 3))]


def tensors(arrays: list[Array]) -> list[torch.Tensor]:
    return [torch.from_numpy(array) for array in arrays]


def test_weights_are_the_plain_count(rng: np.random.Generator) -> None:
    labels = (rng.integers(0, 3, (2, 5, 4, 3)) * (rng.random((2, 5, 4, 3)) < 0.4)).astype(np.int64)
    found = voxel_weights(torch.from_numpy(labels), foreground=3.0, boundary=0.5)
    np.testing.assert_allclose(found.numpy(), naive_weights(labels, foreground=3.0, boundary=0.5))


def test_a_patch_of_one_label_has_no_boundary() -> None:
    ones = torch.ones(1, 3, 4, 5, dtype=torch.uint8)
    assert torch.equal(voxel_weights(ones, foreground=2.0, boundary=7.0), torch.full((1, 3, 4, 5), 3.0))


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_kl_is_the_plain_formula(rng: np.random.Generator, temperature: float) -> None:
    student, teacher = rng.normal(size=(2, 4, 9)), rng.normal(size=(2, 4, 9))
    weights = rng.uniform(0.5, 4, (2, 9))
    found = voxel_kl(*tensors([student, teacher, weights]), temperature=temperature)
    assert float(found) == pytest.approx(naive_kl(student, teacher, weights, temperature=temperature), rel=1e-5)


def test_feature_loss_is_the_plain_formula(rng: np.random.Generator) -> None:
    student, teacher = levels(rng), levels(rng)
    found = feature_loss(tensors(student), tensors(teacher))
    assert float(found) == pytest.approx(naive_feature_loss(student, teacher), rel=1e-5)


def test_a_student_that_is_its_teacher_loses_nothing_and_feels_nothing(rng: np.random.Generator) -> None:
    logits = torch.from_numpy(rng.normal(size=(2, 4, 9))).float().requires_grad_()
    features = [level.float().requires_grad_() for level in tensors(levels(rng))]
    kl = voxel_kl(logits, logits.detach().clone(), torch.ones(2, 9), temperature=2.0)
    distance = feature_loss(features, [level.detach().clone() for level in features])
    (kl + distance).backward()
    assert (float(kl.detach()), float(distance.detach())) == (0.0, 0.0)
    for tensor in (logits, *features):
        assert tensor.grad is not None
        torch.testing.assert_close(tensor.grad, torch.zeros_like(tensor), atol=1e-7, rtol=0)


@settings(deadline=None, max_examples=10)
@given(times=st.integers(2, 5))
def test_both_are_the_same_for_a_patch_and_for_several_like_it(times: int) -> None:
    rng = np.random.default_rng(times)
    student, teacher = tensors([rng.normal(size=(1, 4, 9)), rng.normal(size=(1, 4, 9))])
    weights = torch.from_numpy(rng.uniform(1, 4, (1, 9)))
    one = voxel_kl(student, teacher, weights, temperature=2.0)
    many = voxel_kl(student.repeat(1, 1, times), teacher.repeat(1, 1, times), weights.repeat(1, times), temperature=2.0)
    torch.testing.assert_close(many, one)
    ours, theirs = tensors(levels(rng)), tensors(levels(rng))
    larger = [[level.repeat(1, 1, times, 1, 1) for level in side] for side in (ours, theirs)]
    torch.testing.assert_close(feature_loss(*larger), feature_loss(ours, theirs))


def test_no_gradient_reaches_the_teacher(rng: np.random.Generator) -> None:
    teacher = torch.from_numpy(rng.normal(size=(1, 4, 9))).requires_grad_()
    features = [level.requires_grad_() for level in tensors(levels(rng))]
    student = torch.from_numpy(rng.normal(size=(1, 4, 9))).requires_grad_()
    loss = voxel_kl(student, teacher, torch.ones(1, 9), temperature=1.0)
    ours = [level.requires_grad_() for level in tensors(levels(rng))]
    (loss + feature_loss(ours, features)).backward()
    assert teacher.grad is None
    assert all(level.grad is None for level in features)
    assert student.grad is not None
    assert bool(student.grad.any())


def test_a_silent_level_is_no_division_by_zero() -> None:
    silent = [torch.zeros(1, 2, 2, 2, 2, requires_grad=True)]
    loss = feature_loss(silent, [torch.ones(1, 2, 2, 2, 2)])
    loss.backward()
    assert float(loss.detach()) == pytest.approx(1.0)
    assert silent[0].grad is not None
    assert bool(torch.isfinite(silent[0].grad).all())


def test_other_levels_are_refused(rng: np.random.Generator) -> None:
    whole = tensors(levels(rng))
    with pytest.raises(SpecError, match=r"the same levels, at least one, got \[\(2, 3, 4, 4, 6\)\] and \[\(2, 3, 4,"):
        feature_loss(whole[:1], whole)
    with pytest.raises(SpecError, match=r"at least one, got \[\] and \[\]"):
        feature_loss([], [])
