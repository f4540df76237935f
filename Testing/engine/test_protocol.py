"""The wire format: every message survives the trip, and every malformed one is refused with the reason."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from wbcss import protocol
from wbcss.arrayfile import ArrayFile
from wbcss.errors import Cancelled, DeviceError, OutputError, ProtocolError, VolumeFileError

AFFINE = ((1.5, 0.0, 0.0, -10.0), (0.0, 1.5, 0.0, 0.0), (0.0, 0.0, 3.0, 7.25), (0.0, 0.0, 0.0, 1.0))
ARRAY = ArrayFile(path="/tmp/ct.npy", shape=(4, 5, 6), dtype="int16", affine=AFFINE)

REQUESTS: tuple[protocol.Request, ...] = (
    protocol.Hello(id="1"),
    protocol.DoctorRequest(registry="/r"),
    protocol.ListOrgans(),
    protocol.SegmentRequest(id="a:1", input="/data/Müller 扫描/ct.nii.gz", output="/out/x.seg.nrrd", organs=("liver",)),
    protocol.SegmentRequest(id="b", input=ARRAY, output="/out/x.npy", tasks=("wholebody",), threads=2, preview=True),
    protocol.SegmentRequest(id="d", input=ARRAY, output="/out/x.npy", organs=("liver",), tasks=("wholebody",)),
    protocol.SegmentRequest(id="c", input="/in/ct.nrrd", output="/out/x.seg.nrrd", quality="best", resume=True),
    protocol.Cancel(id="b"),
    protocol.Shutdown(),
)
REPLIES: tuple[protocol.Reply, ...] = (
    protocol.HelloReply(version="0.1.0", pid=7, busy=True),
    protocol.DoctorReply(diagnosis={"versions": {"python": "3.11"}, "problems": []}),
    protocol.Organs(
        organs=(
            protocol.OrganItem(
                name="liver",
                label=5,
                display_name="Liver",
                group="abdomen",
                color_rgb=(221, 130, 101),
                terminology="~~^^~",
                tasks=("wholebody",),
                synonyms=("hepar",),
            ),
        )
    ),
    protocol.Progress(id="b", fraction=0.25, stage="network", remaining_s=12.5),
    protocol.Result(
        id="b",
        files={"labels": "/out/x.npy"},
        labels=ARRAY,
        organs=(
            protocol.OrganRow(organ="liver", label=5, voxels=8, volume_ml=1.5, flags=("touches_border",)),
            protocol.OrganRow(
                organ="spleen",
                label=1,
                voxels=9,
                volume_ml=1.7,
                mean_hu=48.5,
                sd_hu=12.0,
                mean_confidence=0.9,
                center_ras_mm=(-31.5, 2.0, 1.25),
            ),
        ),
        warnings=("a slice is missing",),
        seconds=3.5,
    ),
    protocol.Result(id="c", files={"labels": "/out/x.seg.nrrd"}, skipped=True),
    protocol.ErrorReply(id="b", kind="busy", message="one at a time", exit_code=2),
    protocol.Cancelling(running=False),
    protocol.Goodbye(),
    protocol.BatchDone(total=3, skipped=1, failed=1),
)


@pytest.mark.parametrize("request_", REQUESTS, ids=lambda message: message.type)
def test_a_request_survives_the_trip(request_: protocol.Request) -> None:
    assert protocol.parse_request(protocol.encode(request_)) == request_


@pytest.mark.parametrize("reply", REPLIES, ids=lambda message: message.type)
def test_a_reply_survives_the_trip(reply: protocol.Reply) -> None:
    assert protocol.parse_reply(protocol.encode(reply).encode()) == reply


@pytest.mark.parametrize("message", REQUESTS + REPLIES, ids=lambda message: message.type)
def test_a_message_is_one_line_of_ascii(message: Any) -> None:
    line = protocol.encode(message)
    assert line.isascii()
    assert line.count("\n") == 1
    assert line.endswith("\n")


def _line(**fields: Any) -> str:
    return json.dumps({"protocol": 1, **fields})


SEGMENT = {"type": "segment", "id": "s", "input": "/ct.nrrd", "output": "/x.nii.gz"}
MALFORMED = {
    "not JSON": ("liver please", "one line of JSON, got 'liver please'"),
    "empty": ("", "one line of JSON, got ''"),
    "a list": ("[1, 2]", r"JSON object, got \[1, 2\]"),
    "not UTF-8": (b'{"type": "\xff"}', "UTF-8 text"),
    "nested too deep": ("[" * 100_000, "one line of JSON"),
    "no version": (json.dumps({"type": "hello"}), '"protocol": 1, got None'),
    "another version": (json.dumps({"protocol": 2, "type": "hello"}), '"protocol": 1, got 2'),
    "version true": (json.dumps({"protocol": True, "type": "hello"}), '"protocol": 1, got True'),
    "no type": (_line(), "type must be one of hello, .*, got None"),
    "unknown type": (_line(type="explode"), "got 'explode'"),
    "type is a list": (_line(type=["hello"]), r"got \['hello'\]"),
    "a reply as a request": (_line(type="goodbye"), "got 'goodbye'"),
    "unknown field": (_line(type="hello", colour="red"), "hello has no field colour; its fields are id"),
    "field twice": ('{"protocol": 1, "type": "hello", "id": "a", "id": "b"}', "got 'id' twice"),
    "missing fields": (_line(type="segment", id="s"), "segment needs the field input, output"),
    "id missing": (_line(type="segment", input="/a", output="/b"), "needs an id"),
    "id not a text": (_line(type="hello", id=7), "hello.id must be a text, got 7"),
    "id with spaces": (_line(type="hello", id="a b"), "id must be at most 64 .* got 'a b'"),
    "input a number": (_line(**{**SEGMENT, "input": 3}), "segment.input must be a text or an object, got 3"),
    "input relative": (_line(**{**SEGMENT, "input": "ct.nrrd"}), "input must be an absolute path, got 'ct.nrrd'"),
    "output relative": (_line(**{**SEGMENT, "output": "x.nii.gz"}), "output must be an absolute path"),
    "organs a text": (_line(**SEGMENT, organs="liver"), "segment.organs must be a list, got 'liver'"),
    "organ a number": (_line(**SEGMENT, organs=["liver", 5]), r"segment.organs\[1\] must be a text, got 5"),
    "unknown quality": (_line(**SEGMENT, quality="superb"), "one of fast, normal, best, got 'superb'"),
    "statistics a number": (_line(**SEGMENT, statistics=1), "segment.statistics must be true or false, got 1"),
    "threads true": (_line(**SEGMENT, threads=True), "segment.threads must be an integer, got True"),
    "threads zero": (_line(**SEGMENT, threads=0), "threads must be at least 1, got 0"),
    "NaN": (_line(**SEGMENT, threads=float("nan")), "finite, got NaN"),
    "array without shape": (
        _line(**{**SEGMENT, "input": {"path": "/a.npy", "dtype": "int16", "affine": []}}),
        "segment.input needs the field shape",
    ),
    "array of 2D shape": (
        _line(**{**SEGMENT, "input": {"path": "/a.npy", "shape": [1, 2], "dtype": "int16", "affine": []}}),
        "segment.input.shape must be a list of 3, got 2 entries",
    ),
    "array of objects": (
        _line(**{**SEGMENT, "input": {"path": "/a.npy", "shape": [1, 2, 3], "dtype": "object", "affine": []}}),
        "segment.input.dtype must be one of .* got 'object'",
    ),
    "array pickled": (
        _line(**{**SEGMENT, "input": {"path": "/a.pkl", "shape": [1, 2, 3], "dtype": "int16", "affine": AFFINE}}),
        "ending in .npy or .raw, got '/a.pkl'",
    ),
    "array with three rows": (
        _line(**{**SEGMENT, "input": {"path": "/a.npy", "shape": [1, 2, 3], "dtype": "int16", "affine": AFFINE[:3]}}),
        "four rows of four",
    ),
    "array of infinite affine": (
        _line(
            **{**SEGMENT, "input": {"path": "/a.npy", "shape": [1, 2, 3], "dtype": "int16", "affine": [[1]]}}
        ).replace("[[1]]", "[[1e999]]"),
        r"affine\[0\]\[0\] must be a finite number, got inf",
    ),
    "array of no voxels": (
        _line(**{**SEGMENT, "input": {"path": "/a.npy", "shape": [0, 2, 3], "dtype": "int16", "affine": AFFINE}}),
        r"shape of an array file must be positive, got \(0, 2, 3\)",
    ),
}


@pytest.mark.parametrize(("line", "complaint"), MALFORMED.values(), ids=MALFORMED.keys())
def test_a_malformed_request_is_refused_with_the_reason(line: str | bytes, complaint: str) -> None:
    with pytest.raises(ProtocolError, match=complaint):
        protocol.parse_request(line)


@pytest.mark.parametrize(("line", "_complaint"), MALFORMED.values(), ids=MALFORMED.keys())
def test_a_complaint_is_one_short_line(line: str | bytes, _complaint: str) -> None:
    with pytest.raises(ProtocolError) as caught:
        protocol.parse_request(line)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400


def test_a_line_over_the_limit_is_refused_with_its_length() -> None:
    line = _line(type="hello", id="a" * protocol.MAX_LINE_BYTES)
    with pytest.raises(ProtocolError, match=f"1048576 bytes long, got {len(line)}"):
        protocol.parse_request(line)
    with pytest.raises(ProtocolError, match="1048576 bytes long, this doctor_reply has"):
        protocol.encode(protocol.DoctorReply(diagnosis={"log": "x" * protocol.MAX_LINE_BYTES}))


def test_what_json_cannot_hold_is_not_sent() -> None:
    with pytest.raises(ProtocolError, match="doctor_reply message must hold plain finite"):
        protocol.encode(protocol.DoctorReply(diagnosis={"free_mib": float("nan")}))
    with pytest.raises(ProtocolError, match="doctor_reply message must hold plain finite"):
        protocol.encode(protocol.DoctorReply(diagnosis={"home": Path("/")}))


def test_progress_beyond_the_end_is_refused() -> None:
    with pytest.raises(ProtocolError, match=r"fraction must be in \[0, 1\], got 1.5"):
        protocol.Progress(fraction=1.5, stage="network")


def test_an_exit_code_that_no_command_has_is_refused() -> None:
    with pytest.raises(ProtocolError, match="exit_code must be 2, 3 or 130, got 1"):
        protocol.ErrorReply(kind="odd", message="m", exit_code=1)


@pytest.mark.parametrize(
    ("line", "expected"),
    [(_line(type="nonsense", id="s1"), "s1"), ("not json", ""), (_line(id=5), ""), (_line(id="a b"), "")],
)
def test_the_id_of_a_malformed_message_is_found_where_there_is_one(line: str, expected: str) -> None:
    assert protocol.id_of(line) == expected


@pytest.mark.parametrize(
    ("error", "kind", "code"),
    [
        (VolumeFileError("cannot read\nthis"), "volume_file", 2),
        (OutputError("x"), "output", 2),
        (DeviceError("x"), "device", 3),
        (Cancelled("x"), "cancelled", 130),
        (KeyError("x"), "unexpected", 3),
        (ModuleNotFoundError("No module named 'torch'"), "missing_package", 3),
    ],
)
def test_an_error_becomes_its_kind_and_exit_code(error: Exception, kind: str, code: int) -> None:
    reply = protocol.error_reply(error, "7")
    assert (reply.id, reply.kind, reply.exit_code) == ("7", kind, code)
    assert "\n" not in reply.message


TRANSCRIPT = """\
> {"protocol": 1, "type": "hello", "id": "1"}
< {"protocol": 1, "type": "hello_reply", "id": "1", "version": "0.1.0", "pid": 4711, "busy": false}
> {"protocol": 1, "type": "segment", "id": "2", "input": "/ct/M\\u00fcller.nii.gz", "output": "/out/m.seg.nrrd", \
"registry": null, "organs": ["liver", "spleen"], "tasks": null, "series": null, "device": "auto", \
"quality": "normal", "threads": null, "statistics": true, "preview": false, "confidence": false, \
"resume": false}
< {"protocol": 1, "type": "progress", "id": "2", "fraction": 0.25, "stage": "network", "remaining_s": 41.5}
> {"protocol": 1, "type": "cancel", "id": "2"}
< {"protocol": 1, "type": "cancelling", "id": "2", "running": true}
< {"protocol": 1, "type": "error", "id": "2", "kind": "cancelled", "message": "cancelled; nothing was written", \
"exit_code": 130}
> {"protocol": 1, "type": "shutdown", "id": ""}
< {"protocol": 1, "type": "goodbye", "id": ""}
"""


def test_a_conversation_reads_like_this() -> None:
    said = (
        protocol.Hello(id="1"),
        protocol.HelloReply(id="1", version="0.1.0", pid=4711),
        protocol.SegmentRequest(
            id="2",
            input="/ct/Müller.nii.gz",
            output="/out/m.seg.nrrd",
            organs=("liver", "spleen"),
            statistics=True,
        ),
        protocol.Progress(id="2", fraction=0.25, stage="network", remaining_s=41.5),
        protocol.Cancel(id="2"),
        protocol.Cancelling(id="2", running=True),
        protocol.error_reply(Cancelled("cancelled; nothing was written"), "2"),
        protocol.Shutdown(),
        protocol.Goodbye(),
    )
    kinds = {type(request) for request in REQUESTS}
    lines = [("> " if type(m) in kinds else "< ") + protocol.encode(m) for m in said]
    assert "".join(lines) == TRANSCRIPT


def test_every_message_type_is_described_in_the_protocol() -> None:
    described = protocol.__doc__ or ""
    for message in REQUESTS + REPLIES:
        assert f"``{message.type}``" in described
