"""Weights on disk and in the network: exact, checked, and task by task."""

from __future__ import annotations

import pickle  # noqa: TID251 -- to make the file that must be refused
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from tiny_registry import ENCODER_SPEC, decoder_spec, encoder_card, make_organ, task_card

from wbcss.errors import OutputError, RegistryError
from wbcss.labels import TaskId
from wbcss.loading import load_model, load_weights, save_weights
from wbcss.nn.encoder import Encoder
from wbcss.nn.model import WholeBodyModel, build_model
from wbcss.registry import Registry, StagedEncoder, StagedTask
from wbcss.storage import sha256_file
from wbcss.weights import decoder_shapes, encoder_shapes

LIVER, BONES, HEART = TaskId("liver"), TaskId("bones"), TaskId("heart")
ORGANS = {LIVER: {"liver": 5, "x_cyst": 10000}, BONES: {"x_bone": 10001}, HEART: {"x_valve": 10002, "x_wall": 10003}}


def publish_network(registry: Registry, network: WholeBodyModel, folder: Path) -> None:
    """Publish every decoder of ``network`` that the registry lacks, and the encoder first."""
    if not registry.root.exists():
        save_weights(network.encoder.state_dict(), folder / "encoder.safetensors")
        registry.publish_encoder(StagedEncoder(card=encoder_card(), weights=folder / "encoder.safetensors"))
    for task in network.tasks:
        save_weights(network.decoder(task).state_dict(), folder / f"{task}.safetensors")
        card = task_card(task, ORGANS[task], encoder_sha256=registry.encoder_card().weights_sha256)
        registry.publish(StagedTask(card=card, weights=folder / f"{task}.safetensors"))


@pytest.fixture
def network() -> WholeBodyModel:
    return build_model(ENCODER_SPEC, {task: decoder_spec(len(organs)) for task, organs in ORGANS.items()})


@pytest.fixture
def registry(tmp_path: Path, network: WholeBodyModel) -> Registry:
    registry = Registry(tmp_path / "registry")
    publish_network(registry, network, tmp_path)
    return registry


def test_a_loaded_model_has_the_float16_values_of_the_trained_one(registry: Registry, network: WholeBodyModel) -> None:
    loaded = load_model(registry)
    assert list(loaded.cards) == [LIVER, BONES, HEART]
    assert loaded.network.tasks == (LIVER, BONES, HEART)
    assert loaded.encoder_card == registry.encoder_card()
    trained = network.state_dict()
    for name, tensor in loaded.network.state_dict().items():
        assert tensor.dtype == torch.float32
        assert torch.equal(tensor, trained[name].to(torch.float16).to(torch.float32)), name


def test_a_loaded_model_is_frozen_and_in_evaluation_mode(registry: Registry) -> None:
    network = load_model(registry).network
    assert not any(parameter.requires_grad for parameter in network.parameters())
    assert not any(module.training for module in network.modules())


def test_only_the_decoders_asked_for_are_read(registry: Registry) -> None:
    registry.task_weights(registry.card(BONES)).unlink()
    loaded = load_model(registry, [HEART, LIVER])
    assert loaded.network.tasks == tuple(loaded.cards) == (LIVER, HEART)
    with pytest.raises(RegistryError, match=r"bones/1/decoder\.safetensors cannot be read: No such file"):
        load_model(registry)


def test_a_decoder_file_holds_no_weight_of_the_encoder(registry: Registry) -> None:
    for card in registry.tasks():
        found = load_weights(
            registry.task_weights(card),
            sha256=card.weights_sha256,
            shapes=decoder_shapes(card.spec, ENCODER_SPEC),
        )
        num_decoder = sum(
            p.numel() for p in build_model(ENCODER_SPEC, {card.task: card.spec}).decoder(card.task).parameters()
        )
        assert sum(tensor.numel() for tensor in found.values()) == num_decoder
        assert not any("encoder" in name for name in found)


def test_deleting_or_adding_a_task_leaves_the_logits_of_the_others_bit_for_bit(
    registry: Registry, tmp_path: Path
) -> None:
    x = torch.randn(1, 1, 8, 8, 8)
    with torch.no_grad():
        before = load_model(registry, [LIVER]).network(x, [LIVER])[LIVER]
        shutil.rmtree(registry.root / "tasks" / "bones")
        more = build_model(ENCODER_SPEC, {BONES: decoder_spec(1)})
        publish_network(registry, more, tmp_path)
        loaded = load_model(registry)
        after = loaded.network(x, loaded.network.tasks)
    assert set(after) == {LIVER, HEART, BONES}
    assert torch.equal(after[LIVER], before)


def test_saving_and_loading_one_decoder_leaves_the_files_of_the_others(registry: Registry, tmp_path: Path) -> None:
    before = registry.fingerprint()
    loaded = load_model(registry, [BONES])
    save_weights(loaded.network.decoder(BONES).state_dict(), tmp_path / "bones-again.safetensors")
    assert registry.fingerprint() == before
    # float16 survives the way to float32 and back.
    assert sha256_file(tmp_path / "bones-again.safetensors") == loaded.cards[BONES].weights_sha256


# Writing


def test_equal_weights_give_equal_files_in_whatever_order_they_come(tmp_path: Path) -> None:
    state = Encoder(ENCODER_SPEC).state_dict()
    save_weights(state, tmp_path / "a.safetensors")
    save_weights(dict(reversed(state.items())), tmp_path / "b.safetensors")
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()
    halves = sum(tensor.numel() for tensor in state.values()) * 2
    assert halves < (tmp_path / "a.safetensors").stat().st_size < halves + 5000


def test_views_shared_tensors_and_other_layouts_are_stored_as_what_they_show(tmp_path: Path) -> None:
    whole = torch.arange(24, dtype=torch.float64).reshape(2, 3, 4)
    state = {
        "turned": whole.transpose(0, 2),
        "part": whole[:, 1],
        "same": whole[:, 1],
        "half": whole.to(torch.bfloat16),
    }
    path = tmp_path / "x.safetensors"
    save_weights(state, path)
    shapes = {name: tuple(tensor.shape) for name, tensor in state.items()}
    for name, tensor in load_weights(path, sha256=sha256_file(path), shapes=shapes).items():
        assert torch.equal(tensor, state[name].to(torch.float32)), name


@pytest.mark.parametrize(
    ("value", "complaint"),
    [
        (float("nan"), "the weight 'a' must be finite, got nan; do not publish a diverged training"),
        (float("-inf"), "the weight 'a' must be finite, got -inf"),
        (70000.0, r"the weight 'a' must lie within \+-65504 to be stored, got 70000"),
        (-65520.0, r"the weight 'a' must lie within \+-65504 to be stored, got 65520"),
    ],
)
def test_weights_that_float16_cannot_hold_are_refused(tmp_path: Path, value: float, complaint: str) -> None:
    path = tmp_path / "x.safetensors"
    with pytest.raises(RegistryError, match=complaint):
        save_weights({"a": torch.tensor([0.0, value, 1.0])}, path)
    assert not path.exists()


def test_the_largest_float16_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    save_weights({"a": torch.tensor([65504.0, -65519.0])}, path)
    loaded = load_weights(path, sha256=sha256_file(path), shapes={"a": (2,)})
    assert loaded["a"].tolist() == [65504.0, -65504.0]


def test_whole_numbers_are_no_weights(tmp_path: Path) -> None:
    with pytest.raises(RegistryError, match=r"the weight 'n' must be floating point, got torch\.int64"):
        save_weights({"n": torch.tensor(3)}, tmp_path / "x.safetensors")


def test_no_weights_are_no_file(tmp_path: Path) -> None:
    with pytest.raises(RegistryError, match=r"x\.safetensors must hold at least one weight, got none"):
        save_weights({}, tmp_path / "x.safetensors")


def test_a_folder_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"cannot write .*x\.safetensors: the folder .*nowhere does not exist"):
        save_weights({"a": torch.zeros(1)}, tmp_path / "nowhere" / "x.safetensors")


# What is refused


def test_a_flipped_byte_is_named(registry: Registry) -> None:
    path = registry.task_weights(registry.card(BONES))
    data = bytearray(path.read_bytes())
    data[-5] ^= 1
    path.write_bytes(bytes(data))
    with pytest.raises(
        RegistryError, match=r"^bones/1/decoder\.safetensors was changed after it was published: its card"
    ):
        load_model(registry)
    assert load_model(registry, [LIVER]).network.tasks == (LIVER,)


def test_a_flipped_byte_of_the_encoder_is_named(registry: Registry) -> None:
    data = bytearray(registry.encoder_weights().read_bytes())
    data[-5] ^= 1
    registry.encoder_weights().write_bytes(bytes(data))
    with pytest.raises(RegistryError, match=r"encoder/encoder\.safetensors was changed after it was published"):
        load_model(registry, [LIVER])


def test_a_pickled_file_is_refused_and_never_run(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[object, tuple[str, str]]:
            return (Path.write_text, (str(tmp_path / "sprung"), "x"))

    path = tmp_path / "x.safetensors"
    path.write_bytes(pickle.dumps(Trap()))
    with pytest.raises(RegistryError, match=r"x\.safetensors is no readable safetensors file"):
        load_weights(path, sha256=sha256_file(path), shapes={"a": (1,)})
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize(
    ("tensors", "complaint"),
    [
        ({"a": (2,), "b": (3,)}, r"x\.safetensors holds the weight 'b', which its spec does not have"),
        ({"b": (3,)}, r"x\.safetensors lacks the weight 'a'"),
        ({"a": (3,)}, r"x\.safetensors: the weight 'a' must have shape \(2,\) by its spec, got \(3,\)"),
        ({"a": (2,), "encoder.stages.0": (3,)}, r"holds the encoder weight 'encoder\.stages\.0' \(1 in all\)"),
    ],
)
def test_keys_and_shapes_must_be_exactly_those_of_the_spec(
    tmp_path: Path, tensors: dict[str, tuple[int, ...]], complaint: str
) -> None:
    path = tmp_path / "x.safetensors"
    save_file({name: torch.zeros(shape) for name, shape in tensors.items()}, path)
    with pytest.raises(RegistryError, match=complaint):
        load_weights(path, sha256=sha256_file(path), shapes={"a": (2,)})


def test_an_encoder_file_is_no_decoder(registry: Registry) -> None:
    with pytest.raises(RegistryError, match=r"lacks the weight 'head\.bias'"):
        load_weights(
            registry.encoder_weights(),
            sha256=registry.encoder_card().weights_sha256,
            shapes=decoder_shapes(decoder_spec(1), ENCODER_SPEC),
        )
    assert load_weights(
        registry.encoder_weights(),
        sha256=registry.encoder_card().weights_sha256,
        shapes=encoder_shapes(ENCODER_SPEC),
    )


def test_an_unknown_task_is_answered_with_the_known_ones(registry: Registry) -> None:
    with pytest.raises(
        RegistryError, match=r"no task 'kidney' in the registry .*; published tasks are liver, bones, heart"
    ):
        load_model(registry, [TaskId("kidney")])


def test_no_task_at_all_is_refused(registry: Registry, tmp_path: Path) -> None:
    with pytest.raises(RegistryError, match="at least one task must be named, got none"):
        load_model(registry, [])
    shutil.rmtree(registry.root / "tasks")
    with pytest.raises(RegistryError, match=r"no task is published in the registry .*; import or enroll one first"):
        load_model(registry)
    with pytest.raises(RegistryError, match="no encoder is published in the registry"):
        load_model(Registry(tmp_path / "empty"))


def test_a_task_of_another_encoder_is_not_loaded(registry: Registry, tmp_path: Path) -> None:
    other = Registry(tmp_path / "other")
    publish_network(other, build_model(ENCODER_SPEC, {}), tmp_path)
    shutil.copytree(registry.root / "tasks" / "bones", other.root / "tasks" / "bones")
    with pytest.raises(
        RegistryError, match=r"bones@1 was made for the encoder \w{12}\.\.\., but this registry has \w{12}"
    ):
        load_model(other)


def test_a_kind_of_decoder_that_cannot_run_yet_is_named(registry: Registry, tmp_path: Path) -> None:
    card = task_card("prior", {"x_any": 10009}, encoder_sha256=registry.encoder_card().weights_sha256, kind="prior")
    save_weights({"embedding": torch.zeros(4, 4)}, tmp_path / "prior.safetensors")
    registry.publish(StagedTask(card=card, weights=tmp_path / "prior.safetensors"))
    assert registry.verify() == []
    with pytest.raises(
        RegistryError, match="prior@1 has a 'prior' decoder; this version of the program runs 'own' ones"
    ):
        load_model(registry)
    assert load_model(registry, [LIVER]).cards[LIVER].organs[0] == make_organ("liver", 5)
