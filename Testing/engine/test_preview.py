"""The preview shows the right thing in the right place, and nothing that names the patient."""

from __future__ import annotations

import tracemalloc
from itertools import permutations, product
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tiny_registry import make_organ

from wbcss import preview as module
from wbcss.axes import axes_of, direction_letters
from wbcss.catalogue import Organ, catalogue
from wbcss.errors import GeometryError, OutputError
from wbcss.legend import draw_legend, legend_size
from wbcss.preview import render_preview, write_preview
from wbcss.volume import Affine, LabelMap, Volume

RED, GREEN = make_organ("spot", 200), make_organ("bar", 201)


def _affine(spacing_mm: tuple[float, float, float] = (2.0, 2.0, 2.0)) -> Affine:
    return np.diag([*spacing_mm, 1.0])


def _volume(shape: tuple[int, int, int] = (40, 30, 50), affine: Affine | None = None) -> Volume:
    return Volume(np.full(shape, 40, np.int16), _affine() if affine is None else affine)


def _labeled(volume: Volume) -> LabelMap:
    """An organ high up on the patient's right, in front: i, k and j large on a RAS grid."""
    labels = np.zeros(volume.shape, np.uint16)
    labels[30:36, 20:26, 40:46] = RED.label
    return labels


def _panels(volume: Volume, labels: LabelMap, organs: tuple[Organ, ...]) -> dict[str, np.ndarray]:
    """The three pictures by plane, as the module makes them."""
    body = module._Oriented.of(volume, labels)
    rows = np.zeros(65536, np.uint16)
    colors = np.zeros((65536, 3), np.uint8)
    for row, organ in enumerate(organs, start=1):
        rows[organ.label] = row
        colors[organ.label] = (255, 0, 0)
    _, center = module._choose_slices(body.labels, rows, len(organs))
    planes = module._PLANES
    return {
        plane.name: np.asarray(module._panel(body, plane, center, (-160.0, 240.0), colors, rows > 0).image)
        for plane in planes
    }


def _center(picture: np.ndarray) -> tuple[float, float]:
    """Place of the red pixels as shares of width and height, from the upper left."""
    y, x = np.nonzero((picture[:, :, 0] > 180) & (picture[:, :, 1] < 100))
    return float(x.mean() / picture.shape[1]), float(y.mean() / picture.shape[0])


def test_the_patients_right_is_on_the_left_and_the_head_is_up() -> None:
    volume = _volume()
    pictures = _panels(volume, _labeled(volume), (RED,))
    x, y = _center(pictures["coronal"])
    assert x == pytest.approx(1 - 33 / 40, abs=0.02)
    assert y == pytest.approx(1 - 43 / 50, abs=0.02)
    x, y = _center(pictures["axial"])
    assert x == pytest.approx(1 - 33 / 40, abs=0.02)
    assert y == pytest.approx(1 - 23 / 30, abs=0.02)
    x, y = _center(pictures["sagittal"])
    assert x == pytest.approx(1 - 23 / 30, abs=0.02)
    assert y == pytest.approx(1 - 43 / 50, abs=0.02)


@pytest.mark.parametrize("order", list(permutations(range(3))))
@pytest.mark.parametrize("flips", list(product((False, True), repeat=3)))
def test_every_storage_order_gives_the_same_picture(order: tuple[int, ...], flips: tuple[bool, ...]) -> None:
    volume = _volume((12, 10, 14), _affine((2.0, 3.0, 4.0)))
    labels = np.zeros(volume.shape, np.uint16)
    labels[8:11, 6:9, 10:13] = RED.label
    voxels = (np.arange(volume.voxels.size) % 200).reshape(volume.shape).astype(np.int16)
    expected = render_preview(Volume(voxels, volume.affine), labels, (RED,))
    steps = tuple(slice(None, None, -1 if flip else 1) for flip in flips)
    affine = np.eye(4)
    for axis, (old, flip) in enumerate(zip(order, flips, strict=True)):
        direction = volume.affine[:3, old]
        affine[:3, axis] = -direction if flip else direction
        affine[:3, 3] += direction * (volume.shape[old] - 1) if flip else 0.0
    stored = Volume(np.ascontiguousarray(voxels.transpose(order)[steps]), affine)
    picture = render_preview(stored, np.ascontiguousarray(labels.transpose(order)[steps]), (RED,))
    assert picture.tobytes() == expected.tobytes()


def test_pixels_are_square_millimeters_on_anisotropic_grids() -> None:
    volume = _volume((40, 30, 10), _affine((1.0, 2.0, 8.0)))
    pictures = _panels(volume, np.zeros(volume.shape, np.uint16), (RED,))
    ratio = {name: picture.shape[1] / picture.shape[0] for name, picture in pictures.items()}
    assert ratio["coronal"] == pytest.approx(40 / 80, rel=0.02)
    assert ratio["sagittal"] == pytest.approx(60 / 80, rel=0.02)
    assert ratio["axial"] == pytest.approx(40 / 60, rel=0.02)
    assert pictures["coronal"].shape[0] == pictures["sagittal"].shape[0]


def test_oblique_grids_keep_their_proportions_and_get_compound_letters() -> None:
    turn = np.radians(25)
    rotation = np.array([[np.cos(turn), -np.sin(turn), 0], [np.sin(turn), np.cos(turn), 0], [0, 0, 1]])
    affine = np.eye(4)
    affine[:3, :3] = rotation * [1.0, 1.0, 3.0]
    volume = _volume((20, 20, 10), affine)
    assert axes_of(affine) == "RAS"
    pictures = _panels(volume, np.zeros(volume.shape, np.uint16), (RED,))
    assert pictures["coronal"].shape[1] / pictures["coronal"].shape[0] == pytest.approx(20 / 30, rel=0.02)
    assert direction_letters(affine[:3, 0]) == "RA"
    assert direction_letters(-affine[:3, 0]) == "LP"
    assert direction_letters(affine[:3, 2]) == "S"


def test_axes_are_named_once_each_even_when_two_lean_the_same_way() -> None:
    affine = np.eye(4)
    affine[:3, 0] = (0.71, 0.70, 0.0)
    affine[:3, 1] = (-0.70, 0.71, 0.0)
    assert sorted(axes_of(affine)) == ["A", "R", "S"]
    assert axes_of(np.diag([-1.0, -1.0, 1.0, 1.0])) == "LPS"
    assert axes_of(np.array([[0, 0, 2.0, 0], [-2.0, 0, 0, 0], [0, 3.0, 0, 0], [0, 0, 0, 1]])) == "PSR"


def test_slices_go_where_the_most_organs_are() -> None:
    labels = np.zeros((20, 20, 20), np.uint16)
    labels[2:18, 2:18, 3] = RED.label
    labels[9, 9, 12] = RED.label
    labels[11, 9, 12] = GREEN.label
    rows = np.zeros(65536, np.uint16)
    rows[RED.label], rows[GREEN.label] = 1, 2
    found, (i, j, k) = module._choose_slices(labels, rows, 2)
    assert found == {1, 2}
    assert (j, k) == (9, 12)
    assert i == 11
    assert module._choose_slices(np.zeros((9, 9, 5), np.uint16), rows, 2) == (set(), (4, 4, 2))


def test_organs_too_small_for_the_sample_are_found_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_SAMPLES", 300)
    labels = np.zeros((21, 21, 21), np.uint16)
    labels[7, 8, 9] = RED.label
    rows = np.zeros(65536, np.uint16)
    rows[RED.label] = 1
    assert module._choose_slices(labels, rows, 1) == ({1}, (7, 8, 9))


def test_the_ct_is_shown_in_a_soft_tissue_window() -> None:
    voxels = np.full((16, 16, 16), -1000, np.int16)
    voxels[:, :, 8:] = 40
    voxels[:, :, 12:] = 2000
    pictures = _panels(Volume(voxels, _affine()), np.zeros(voxels.shape, np.uint16), (RED,))
    column = pictures["coronal"][:, pictures["coronal"].shape[1] // 2, 0]
    assert column[2] == 255
    assert column[int(len(column) * 0.4)] == pytest.approx(127, abs=2)
    assert column[-2] == 0


def test_outlines_are_opaque_and_insides_see_through() -> None:
    gray = np.full((20, 20), 100, np.uint8)
    labels = np.zeros((20, 20), np.uint16)
    labels[5:15, 5:15] = 7
    colors = np.zeros((8, 3), np.uint8)
    colors[7] = (250, 0, 0)
    picture = module._overlaid(gray, labels, colors)
    assert tuple(picture[5, 5]) == (250, 0, 0)
    assert tuple(picture[10, 10]) == (round(100 + 0.38 * 150), 62, 62)
    assert tuple(picture[0, 0]) == (100, 100, 100)


def test_labels_above_a_byte_are_drawn_in_their_own_color() -> None:
    organ = make_organ("new_one", 10007)
    volume = _volume((10, 10, 10))
    labels = np.full(volume.shape, 10007, np.uint16)
    pictures = _panels(volume, labels, (organ,))
    assert (pictures["axial"][:, :, 0] > pictures["axial"][:, :, 1] + 40).all()


def test_values_of_no_organ_are_not_drawn() -> None:
    volume = _volume()
    assert (
        render_preview(volume, _labeled(volume), ()).tobytes()
        == render_preview(volume, np.zeros(volume.shape, np.uint16), ()).tobytes()
    )


@pytest.mark.parametrize("shape", [(1, 30, 30), (30, 1, 30), (30, 30, 1), (1, 1, 1), (3, 400, 2)])
def test_thin_volumes_are_drawn_too(shape: tuple[int, int, int]) -> None:
    volume = _volume(shape)
    picture = render_preview(volume, np.full(shape, RED.label, np.uint16), (RED,))
    assert min(picture.size) > 50


def test_the_same_input_gives_the_same_pixels(tmp_path: Path) -> None:
    volume = _volume()
    for name in ("a.png", "b.png"):
        write_preview(tmp_path / name, volume, _labeled(volume), (RED,))
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_the_file_holds_no_metadata(tmp_path: Path) -> None:
    path = tmp_path / "DOE^JANE 1970.png"
    volume = _volume()
    write_preview(path, volume, _labeled(volume), (RED,))
    with Image.open(path) as picture:
        assert picture.format == "PNG"
        assert picture.info == {}
    assert b"DOE" not in path.read_bytes()
    other = tmp_path / "x.png"
    write_preview(other, volume, _labeled(volume), (RED,))
    assert other.read_bytes() == path.read_bytes()


def test_the_legend_of_all_organs_fits_its_size() -> None:
    organs = tuple(catalogue().values())
    assert len(organs) >= 143
    width, height = legend_size(organs, 1400)
    canvas = Image.new("RGB", (width + 200, height + 200))
    from PIL import ImageDraw

    draw_legend(ImageDraw.Draw(canvas), organs, set(), (0, 0), width)
    pixels = np.asarray(canvas)
    assert not pixels[height:].any()
    assert not pixels[:, width:].any()
    shown = set((pixels.astype(np.uint32) @ [65536, 256, 1]).ravel().tolist())
    assert {red << 16 | green << 8 | blue for red, green, blue in (organ.color_rgb for organ in organs)} <= shown


def test_a_legend_without_organs_says_so() -> None:
    assert legend_size((), 800)[1] > 0
    volume = _volume((8, 8, 8))
    assert render_preview(volume, np.zeros((8, 8, 8), np.uint16), ()).size[0] >= 400


def test_memory_does_not_grow_with_the_volume() -> None:
    peaks = []
    for slices in (100, 400):
        volume = Volume(np.zeros((64, 64, slices), np.int16), _affine((3.0, 3.0, 600.0 / slices)))
        labels = np.full(volume.shape, RED.label, np.uint16)
        render_preview(volume, labels, (RED,))
        tracemalloc.start()
        render_preview(volume, labels, (RED,))
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.3 * peaks[0]


def test_labels_on_another_grid_are_refused() -> None:
    with pytest.raises(GeometryError, match=r"shape of their volume, \(40, 30, 50\), got \(2, 2, 2\)"):
        render_preview(_volume(), np.zeros((2, 2, 2), np.uint16), ())


def test_a_missing_folder_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="nowhere"):
        write_preview(tmp_path / "nowhere" / "x.png", _volume((8, 8, 8)), np.zeros((8, 8, 8), np.uint16), ())


def test_another_modality_is_windowed_by_its_own_values() -> None:
    voxels = np.linspace(0, 5000, 1000).reshape(10, 10, 10).astype(np.float32)
    picture = render_preview(Volume(voxels, _affine(), "MR"), np.zeros((10, 10, 10), np.uint16), ())
    values = np.asarray(picture)[30:200]
    assert len(np.unique(values)) > 20
