"""The ways in which annotated scans lie on a disk, each read as a list of cases. No image is opened here."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, Literal

from wbcss.catalogue import FIRST_CUSTOM_LABEL, catalogue
from wbcss.errors import CaseError
from wbcss.labels import OrganName

from .annotation import IMAGE_SUFFIXES, SEGMENTATION_SUFFIX, Case
from .mapping import ALL_ORGANS, OrganChoice, map_names
from .segmentfile import segment_names

_DATASET = "dataset.json"
_MASK_FOLDER = "segmentations"
_EXPECTED = (
    "dataset.json with imagesTr and labelsTr, folders with ct.nii.gz and segmentations/, images with .seg.nrrd files "
    "beside them, or a JSON list"
)


def read_case_list(
    path: Path, *, organs: OrganChoice = ALL_ORGANS, leave_out: Collection[int] = (), same_grid: bool = False
) -> tuple[Case, ...]:
    """Cases of a JSON list or of a folder, in a fixed order.

    Layouts:
        JSON list: ``{"organs": {"1": "liver", ...}, "absent": "unknown" | "background", "new_organs": [...],
            "cases": [{"image": ..., "labels": ..., "patient": ...}]}`` with paths relative to it; without ``organs``
            the labels must be ``.seg.nrrd`` files. ``absent``, ``new_organs`` and ``patient`` may be left out.
        nnU-Net raw and Decathlon: ``imagesTr``, ``labelsTr`` and ``dataset.json``, or that file itself.
        TotalSegmentator: folders with ``ct.nii.gz`` and ``segmentations/ORGAN.nii.gz``. A missing mask means that the
            organ was not contoured, an empty one that it is not there.
        Segmentations of 3D Slicer: ``NAME.seg.nrrd`` beside the image ``NAME.nii.gz`` (or ``.nii .nrrd .mha``), or one
            of each in a folder. Segments go by name; an organ without a voxel was not contoured.

    Args:
        path: The list or folder.
        organs: Which organs to take, and what they are called there.
        leave_out: Numbers of cases to leave out, counted from 1; the others are numbered anew.
        same_grid: Take labels that lie less than half a voxel off their image as lying on its grid.

    Raises:
        CaseError: The list or folder is of no such layout, names a file that is not there or that lies outside of it,
            or names an organ that the catalogue lacks; a case to leave out is not there, or none is left.
    """
    if not path.exists():
        raise CaseError(f"expected a JSON list of cases or a folder with dataset.json, got {path}: it does not exist")
    if path.is_dir():
        cases = _folder_cases(path, organs)
    elif path.name == _DATASET:
        cases = _dataset_cases(path.parent, organs)
    else:
        cases = _list_cases(path, organs)
    strange = sorted(number for number in leave_out if not 1 <= number <= len(cases))
    if strange:
        raise CaseError(f"cases to leave out must be numbers from 1 to {len(cases)}, got {strange[0]}")
    kept = [replace(case, same_grid=same_grid) for number, case in enumerate(cases, 1) if number not in leave_out]
    return _checked(kept, path, organs)


def _folder_cases(folder: Path, organs: OrganChoice) -> list[Case]:
    if (folder / _DATASET).is_file():
        return _dataset_cases(folder, organs)
    inside = [folder, *_visible(folder, Path.is_dir)]
    if any((place / _MASK_FOLDER).is_dir() for place in inside):
        return _mask_cases([place for place in inside if (place / _MASK_FOLDER).is_dir()], organs)
    if any(_segmentations(place) for place in inside):
        return [case for place in inside for case in _segmentation_cases(place, organs)]
    lacks = "imagesTr without dataset.json" if (folder / "imagesTr").is_dir() else _contents(folder)
    raise CaseError(f"a folder of cases must hold {_EXPECTED}; got {lacks} in {folder}")


def _list_cases(file: Path, organs: OrganChoice) -> list[Case]:
    facts = _facts(file)
    absent = facts.get("absent", "background")
    if absent not in ("unknown", "background"):
        raise CaseError(f"'absent' in {file.name} must be 'unknown' or 'background', got {absent!r}")
    try:
        choice = organs.also_new(facts.get("new_organs", []))
        pairs = [(file.parent / case["image"], file.parent / case["labels"]) for case in facts["cases"]]
        patients = [str(case.get("patient", "")) for case in facts["cases"]]
        numbers = facts["organs"].items() if "organs" in facts or not _are_segmentations(pairs) else None
    except (KeyError, TypeError, AttributeError) as error:
        raise CaseError(f"{file.name} must hold 'organs' and 'cases' with 'image' and 'labels', got {error}") from error
    _check_present([path for pair in pairs for path in pair], file)
    if numbers is None:
        return [
            _segmentation_case(image, labels, choice, patient=patient, absent=facts.get("absent", "unknown"))
            for (image, labels), patient in zip(pairs, patients, strict=True)
        ]
    values, ignored = _values(((value, name) for value, name in numbers), choice, file)
    return [
        Case(
            image_path=image,
            labels_path=labels,
            values=values,
            absent=absent,
            ignored=ignored,
            new_organs=choice.new_organs,
            patient=patient,
        )
        for (image, labels), patient in zip(pairs, patients, strict=True)
    ]


def _are_segmentations(pairs: Sequence[tuple[Path, Path]]) -> bool:
    return bool(pairs) and all(labels.name.endswith(SEGMENTATION_SUFFIX) for _, labels in pairs)


def _dataset_cases(folder: Path, organs: OrganChoice) -> list[Case]:
    """nnU-Net raw and Decathlon, which share the name of their table but write it differently."""
    file = folder / _DATASET
    facts = _facts(file)
    labels = facts.get("labels")
    if not isinstance(labels, dict):
        raise CaseError(f"dataset.json must map the names of its labels to values, got {labels!r}")
    is_by_value = bool(labels) and all(str(key).isdigit() for key in labels)
    named = [(value, name) if is_by_value else (name, value) for value, name in labels.items()]
    values, ignored = _values(((v, n) for v, n in named if str(n).lower() != "background"), organs, file)
    entries = facts.get("training")
    pairs = _listed_pairs(folder, entries) if isinstance(entries, list) and entries else _paired_files(folder)
    modality = _modality(facts, file)
    return [
        Case(
            image_path=image,
            labels_path=labels_path,
            values=values,
            ignored=ignored,
            new_organs=organs.new_organs,
            modality=modality,
        )
        for image, labels_path in pairs
    ]


def _listed_pairs(folder: Path, entries: Sequence[Any]) -> list[tuple[Path, Path]]:
    """Decathlon's list. nnU-Net 1 wrote it too, but kept the images under names with a channel number."""
    pairs = []
    for entry in entries:
        try:
            image, labels = (_within(folder, entry[key]) for key in ("image", "label"))
        except (KeyError, TypeError) as error:
            raise CaseError(
                f"'training' in dataset.json must list objects with 'image' and 'label', got {entry!r}"
            ) from error
        suffix = next((s for s in IMAGE_SUFFIXES if image.name.endswith(s)), "")
        channel = image.with_name(image.name.removesuffix(suffix) + "_0000" + suffix)
        pairs.append((channel if channel.exists() and not image.exists() else image, labels))
    return pairs


def _paired_files(folder: Path) -> list[tuple[Path, Path]]:
    if not (folder / "labelsTr").is_dir():
        raise CaseError(f"an nnU-Net folder must hold imagesTr and labelsTr, got no labelsTr in {folder}")
    pairs = []
    for labels in _visible(folder / "labelsTr", Path.is_file):
        suffix = next((s for s in IMAGE_SUFFIXES if labels.name.endswith(s)), None)
        if suffix is not None:
            pairs.append((folder / "imagesTr" / (labels.name.removesuffix(suffix) + "_0000" + suffix), labels))
    return pairs


def _modality(facts: Mapping[str, Any], file: Path) -> str:
    """What the table says of its one channel; nnU-Net and Decathlon give it different names."""
    channels = facts.get("channel_names", facts.get("modality", {}))
    if not isinstance(channels, dict):
        return ""
    if len(channels) > 1:
        raise CaseError(
            f"{file.name} must describe one CT channel, got {len(channels)}: "
            f"{', '.join(str(name) for name in channels.values())}; keep the CT only"
        )
    return str(next(iter(channels.values()), ""))


def _values(
    pairs: Iterable[tuple[Any, Any]], organs: OrganChoice, file: Path
) -> tuple[dict[int, OrganName], frozenset[int]]:
    """Label value to organ, and the values nobody asked for; every value a whole number above 0, every organ once."""
    names: dict[int, str] = {}
    for value, name in pairs:
        try:
            number = int(value)
        except (TypeError, ValueError):
            number = 0
        if number < 1:
            raise CaseError(f"{file.name} must give {name!r} a whole number above 0, got {value!r}")
        if number in names or name in names.values():
            raise CaseError(f"{file.name} may give a value or an organ once, got {value!r} for {name!r} again")
        names[number] = str(name)
        if names[number].lower() == "ignore":
            raise CaseError(
                f"{file.name} has a label {name!r} for voxels that nobody annotated, which cannot be learned from; "
                "leave out those cases and the label"
            )
    if not names:
        raise CaseError(f"{file.name} must name at least one organ, got none")
    mapped = map_names(names.values(), organs, source=file.name)
    values = {number: mapped[name] for number, name in names.items() if name in mapped}
    return values, frozenset(names) - frozenset(values)


def _mask_cases(folders: Sequence[Path], organs: OrganChoice) -> list[Case]:
    cases = []
    for folder in folders:
        image = next((folder / f"ct{s}" for s in IMAGE_SUFFIXES if (folder / f"ct{s}").is_file()), None)
        if image is None:
            raise CaseError(
                f"a TotalSegmentator folder must hold ct.nii.gz beside {_MASK_FOLDER}, got none in {folder}"
            )
        files = {
            path.name.removesuffix(suffix): path
            for path in _visible(folder / _MASK_FOLDER, Path.is_file)
            if (suffix := next((s for s in IMAGE_SUFFIXES if path.name.endswith(s)), None))
        }
        mapped = map_names(files, organs, source=f"{folder.name}/{_MASK_FOLDER}")
        cases.append(
            Case(
                image_path=image,
                labels_path=folder / _MASK_FOLDER,
                values=_numbered(mapped.values()),
                masks={organ: files[name] for name, organ in mapped.items()},
                new_organs=organs.new_organs,
                patient=folder.absolute().name,
            )
        )
    return cases


def _segmentation_cases(folder: Path, organs: OrganChoice) -> list[Case]:
    """Every ``.seg.nrrd`` of a folder with its image: of its name, of the beginning of its name, or the only one."""
    segmentations = _segmentations(folder)
    images = {
        path.name.removesuffix(suffix): path
        for path in _visible(folder, Path.is_file)
        if path not in segmentations and (suffix := next((s for s in IMAGE_SUFFIXES if path.name.endswith(s)), None))
    }
    cases = []
    for labels in segmentations:
        stem = labels.name.removesuffix(SEGMENTATION_SUFFIX)
        near = [name for name in images if stem == name or (stem.startswith(name) and stem[len(name)] in "_-. ")]
        if not near and len(images) == len(segmentations) == 1:
            near = list(images)
        if not near:
            raise CaseError(
                f"{labels.name} must lie beside its image, such as {stem}.nii.gz, got {_contents(folder)} in {folder}"
            )
        cases.append(_segmentation_case(images[max(near, key=len)], labels, organs))
    return cases


def _segmentation_case(
    image: Path,
    labels: Path,
    organs: OrganChoice,
    *,
    patient: str = "",
    absent: Literal["unknown", "background"] = "unknown",
) -> Case:
    segments = map_names(segment_names(labels), organs, source=labels.name)
    return Case(
        image_path=image,
        labels_path=labels,
        values=_numbered(segments.values()),
        absent=absent,
        segments=segments,
        new_organs=organs.new_organs,
        patient=patient,
    )


def _numbered(organs: Iterable[OrganName]) -> dict[int, OrganName]:
    """A label value for each organ: the catalogue's, and from the first free one on for new organs."""
    known = catalogue()
    organs = list(organs)
    new = sorted(organ for organ in organs if organ not in known)
    values = {organ: FIRST_CUSTOM_LABEL + number for number, organ in enumerate(new)}
    return {values.get(organ, 0) or known[organ].label: organ for organ in organs}


def _within(folder: Path, name: Any) -> Path:
    """``folder / name``; a dataset may not name files outside of its folder."""
    text = str(name)
    is_absolute = (
        PurePosixPath(text).is_absolute() or PureWindowsPath(text).is_absolute() or PureWindowsPath(text).drive
    )
    inside = os.path.normpath(text.replace("\\", "/"))
    if not isinstance(name, str) or is_absolute or inside.split("/")[0] == "..":
        raise CaseError(f"dataset.json may only name files inside its folder, got {text!r}")
    return folder / inside


def _facts(file: Path) -> dict[str, Any]:
    try:
        facts = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CaseError(f"expected a JSON list of cases or a folder with dataset.json, got {file}: {error}") from error
    if not isinstance(facts, dict):
        raise CaseError(f"{file.name} must hold 'organs' and 'cases' in a JSON object, got a {type(facts).__name__}")
    return facts


def _visible(folder: Path, kind: Callable[[Path], bool]) -> list[Path]:
    """Entries in the order of their names, without hidden ones, which macOS strews into archives."""
    return sorted(entry for entry in folder.iterdir() if not entry.name.startswith(".") and kind(entry))


def _segmentations(folder: Path) -> list[Path]:
    return [path for path in _visible(folder, Path.is_file) if path.name.endswith(SEGMENTATION_SUFFIX)]


def _contents(folder: Path, limit: int = 3) -> str:
    names = [entry.name for entry in sorted(folder.iterdir())]
    return ", ".join(names[:limit]) + (" ..." if len(names) > limit else "") if names else "nothing"


def _check_present(paths: Iterable[Path], source: Path) -> None:
    missing = [path.name for path in paths if not path.exists()]
    if missing:
        more = f" (and {len(missing) - 1} more)" if len(missing) > 1 else ""
        raise CaseError(f"{source.name} names {missing[0]}, which is not there{more}; check the paths in the list")


def _checked(cases: Sequence[Case], source: Path, organs: OrganChoice) -> tuple[Case, ...]:
    if not cases:
        raise CaseError(f"{source.name} must list at least one case, got none")
    _check_present([path for case in cases for path in case.files], source)
    found = {organ for case in cases for organ in case.values.values()}
    lacking = sorted((organs.wanted or frozenset()) - found)
    if lacking or not found:
        have = ", ".join(sorted(found)) or "none of the catalogue"
        raise CaseError(f"{source.name} must hold every chosen organ, got none for {', '.join(lacking)}; it has {have}")
    return tuple(cases)
