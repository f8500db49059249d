"""Check SAM and the methods that refine masks by it, with tiny random networks and a stand-in of known masks."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import sams
import torch
from lightning_fabric import Fabric
from tiny import instances, load_backend, study, with_soft

from pais_bench import plugins
from pais_bench.annotations.store import Store
from pais_bench.errors import BenchError
from pais_bench.methods import _sam, _sam_folder
from pais_bench.methods._sam import Sam, draw_points
from pais_bench.splits.draw import draw_split
from pais_bench.study.study import Study
from pais_bench.training.pseudo_labels import refine
from pais_bench.training.trainer import Trainer
from pais_bench.types import InstanceMaps, Instances

KINDS = ["sam", "sam2"]
BOXES = [[4, 4, 30, 20], [40, 8, 60, 44], [10, 30, 34, 47]]
SIZE = (48, 72)


def transformers() -> Any:
    return pytest.importorskip("transformers", reason="the extra pais-bench[sam] is not installed")


def is_5() -> bool:
    return int(transformers().__version__.split(".")[0]) >= 5


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Return what writes a tiny random network to a folder, as the hub has it."""
    root = tmp_path_factory.mktemp("sam")

    def write(kind: str) -> Path:
        transformers().utils.logging.disable_progress_bar()
        if not (root / kind).exists():
            sams.network(kind).save_pretrained(root / kind)
        return root / kind

    return write


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> Sam:
    monkeypatch.setattr(_sam, "load_sam", lambda folder: sams.StandIn())
    return Sam(Path("sam"))


def method(name: str, **options: Any) -> Any:
    plugin = plugins.load("methods", name)
    built = plugin.Method(plugin.Options(**{"sam": "sam", **options}))
    built.prepare([], [], [])
    return built


def view() -> torch.Tensor:
    return torch.rand(3, *SIZE, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("kind", KINDS)
def test_a_folder_holds_the_network_and_tells_its_weights(kind: str, folder: Callable[[str], Path]) -> None:
    path = folder(kind)
    loaded = Sam(path).network
    missing = 16 if kind == "sam" and not is_5() else 0  # its positional embedding is no parameter in version 4
    assert sum(parameter.numel() for parameter in loaded.parameters()) == sams.PARAMETERS[kind] - missing
    saved, state = sams.network(kind).state_dict(), loaded.state_dict()
    assert all(torch.equal(state[name], value) for name, value in saved.items())
    assert not loaded.training and not any(parameter.requires_grad for parameter in loaded.parameters())
    assert _sam_folder.describe_cost(path, 12).startswith(f"SAM of {sams.PARAMETERS[kind] / 1e6:.1f} M weights encodes")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("by", ["boxes", "points"])
def test_a_view_is_segmented_as_by_the_processors(kind: str, by: str, folder: Callable[[str], Path]) -> None:
    """Own preparation, prompts and masks equal those of transformers, whose processors read values in 0..1 too."""
    library, image, network = transformers(), view(), sams.network(kind)
    if kind == "sam":
        if not is_5():
            pytest.skip("SAM's processor of transformers 4 rounds values to 8 bits")
        images = library.SamImageProcessor(size={"longest_edge": 64}, pad_size={"height": 64, "width": 64})
        processor = library.SamProcessor(images)
    else:
        build = library.Sam2ImageProcessor if is_5() else library.Sam2ImageProcessorFast
        processor = library.Sam2Processor(build(size={"height": 128, "width": 128}), target_size=128)
    points = torch.tensor(BOXES).reshape(3, 2, 2).tolist()
    prompts = {"input_boxes": [BOXES]} if by == "boxes" else {"input_points": [points], "input_labels": [[[1, 1]] * 3]}
    inputs = processor(image, **prompts, do_rescale=False, return_tensors="pt")
    sizes = [inputs.pop("original_sizes"), inputs.pop("reshaped_input_sizes", None)][: 2 if kind == "sam" else 1]
    inputs = {name: value.float() if value.is_floating_point() else value for name, value in inputs.items()}
    with torch.no_grad():
        output = network(**inputs, multimask_output=True)
    candidates = processor.post_process_masks(output.pred_masks, *sizes)[0]

    sam = Sam(folder(kind))
    torch.testing.assert_close(sam.pixels(image), inputs["pixel_values"], rtol=0, atol=1e-5)
    own = torch.tensor(BOXES, dtype=torch.float32) if by == "boxes" else torch.tensor(points, dtype=torch.float32)
    masks, estimates = sam.segment(image, own)
    best = output.iou_scores[0].argmax(1)
    assert masks.shape == (3, *SIZE) and 0 < masks.float().mean() < 1
    assert (masks == candidates[torch.arange(3), best]).float().mean() > 0.999, "the logits > 0 of the best candidate"
    torch.testing.assert_close(estimates, output.iou_scores[0].amax(1).clamp(0, 1), rtol=0, atol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_a_training_of_half_precision_encodes_in_it_and_decodes_in_single(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    transformers()
    monkeypatch.setattr(_sam, "load_sam", lambda folder: sams.network(kind))
    sam, boxes = Sam(Path("sam")), torch.tensor(BOXES, dtype=torch.float32)
    expected, estimates = sam.segment(view(), boxes)
    half = []
    for name in ("get_image_embeddings", "forward"):
        call = getattr(sam.network, name)
        monkeypatch.setattr(
            sam.network, name, lambda *a, call=call, **k: half.append(torch.is_autocast_enabled("cpu")) or call(*a, **k)
        )
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        masks, others = sam.segment(view(), boxes)
    assert half == [True, False] and others.dtype == torch.float32
    torch.testing.assert_close(others, estimates, rtol=0, atol=1e-2)
    assert (masks == expected).float().mean() > 0.95


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("points", [0, 3])
def test_a_mask_depends_neither_on_order_nor_on_the_other_instances(
    kind: str, points: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    transformers()
    monkeypatch.setattr(_sam, "load_sam", lambda folder: sams.network(kind))
    tested, teacher = method("sam_refined", points=points), with_soft(instances(BOXES, labels=[0, 1, 2], size=SIZE))
    assert teacher.soft_masks is not None
    values = torch.rand(3, 4, 4, generator=torch.Generator().manual_seed(2))
    teacher = replace(teacher, soft_masks=replace(teacher.soft_masks, values=values))

    def masks(index: list[int]) -> torch.Tensor:
        torch.manual_seed(7)
        refined: Instances = tested.refine(view(), teacher[torch.tensor(index)], 0.5)
        return refined.masks

    whole = masks([0, 1, 2])
    assert torch.equal(masks([2, 0, 1]), whole[[2, 0, 1]]) and torch.equal(masks([1]), whole[[1]])
    assert not torch.equal(whole, teacher.masks)


@pytest.mark.parametrize("name", ["s4m", "sam_refined"])
def test_of_nothing_nothing_is_refined_and_no_view_encoded(name: str, stand_in: Sam) -> None:
    tested = method(name)
    tested.sam.network.get_image_embeddings = None
    refined = tested.refine(view(), with_soft(instances([], size=SIZE)), 0.5)
    assert len(refined) == 0 and refined.masks.shape == (0, *SIZE)


def test_the_best_of_three_masks_is_brought_to_the_view(stand_in: Sam) -> None:
    """The stand-in fills boxes; there are more than are decoded at once."""
    masks, estimates = stand_in.segment(torch.rand(3, 128, 128), torch.tensor([[8.0, 16.0, 48.0, 64.0]] * 40))
    expected = instances([[8, 16, 48, 64]], size=(128, 128)).masks
    assert torch.equal(masks, expected.expand(40, -1, -1))
    torch.testing.assert_close(estimates, torch.full((40,), 0.9))
    half, _ = stand_in.segment(torch.rand(3, 64, 32), torch.tensor([[2.0, 8.0, 12.0, 32.0]]))
    assert torch.equal(half[0], instances([[2, 8, 12, 32]], size=(64, 32)).masks[0])


def test_what_sam_does_not_find_stays_the_teachers(stand_in: Sam) -> None:
    teacher = instances([[8, 16, 48, 64], [8, 16, 48, 64], [8, 16, 48, 64]], mask_iou=[0.1, 0.2, 0.3], size=(128, 128))
    teacher.masks[1] = False
    prompts = torch.tensor([[8.0, 16.0, 48.0, 64.0], [8.0, 16.0, 48.0, 64.0], [0.0, 0.0, 0.4, 0.4]])
    refined = stand_in.refine(torch.rand(3, 128, 128), teacher, prompts)
    assert torch.equal(refined.masks, teacher.masks), "SAM's is the same; the teacher's is empty; SAM's is empty"
    assert refined.mask_iou.tolist() == pytest.approx([0.9, 0.2, 0.3])
    wide = torch.tensor([[8.0, 16.0, 88.0, 64.0]] * 3)  # an IoU of 0.5 with the teacher's
    for keep_below, kept in ((0.5, False), (0.51, True)):
        refined = stand_in.refine(torch.rand(3, 128, 128), teacher, wide, keep_below)
        assert torch.equal(refined.masks[0], teacher.masks[0]) is kept
        assert refined.mask_iou[0].item() == pytest.approx(0.1 if kept else 0.9)
    stand_in.network.estimates = (-0.1, 1.2, 0.5)
    assert stand_in.segment(torch.rand(3, 128, 128), wide)[1].tolist() == [1, 1, 1], "SAM's estimate has no bounds"


# S4M: logits of four cells, and the probabilities that each is the first point.
LOGITS = [4.0, 2.0, 0.0, -2.0]
PROBABILITIES = [0.864955, 0.117059, 0.015842, 0.002144]


def test_points_are_drawn_by_the_softmax_over_the_logits_without_replacement() -> None:
    maps = InstanceMaps(
        torch.tensor(LOGITS).sigmoid().reshape(1, 2, 2), torch.tensor([[10.0, 20.0, 14.0, 28.0]]), torch.eye(3)
    )
    detections = replace(instances([[10, 20, 14, 28]]), soft_masks=maps)
    centres = [(11.0, 22.0), (13.0, 22.0), (11.0, 26.0), (13.0, 26.0)]
    torch.manual_seed(0)
    draws = [[tuple(point) for point in draw_points(detections, 3)[0].tolist()] for _ in range(3000)]
    assert all(len(set(draw)) == 3 and set(draw) <= set(centres) for draw in draws)
    p = torch.tensor(LOGITS, dtype=torch.float64).softmax(0).tolist()
    assert p == pytest.approx(PROBABILITIES, abs=1e-6)
    first = Counter(draw[0] for draw in draws)
    assert [first[centre] / 3000 for centre in centres] == pytest.approx(p, abs=0.015)
    pairs = Counter(draw[:2] == [centres[0], centres[1]] for draw in draws)
    assert pairs[True] / 3000 == pytest.approx(p[0] * p[1] / (1 - p[0]), abs=0.03)


def test_s4m_has_the_constants_of_its_release(stand_in: Sam) -> None:
    tested = method("s4m")
    assert (tested.unlabelled_weight, tested.pretrained_teacher_steps, tested.options.points) == (2, 25_000, 3)
    boxes = [[0, 0, 10, 10], [0, 0, 10, 10], [0, 0, 10, 10]]
    detections = with_soft(instances(boxes, labels=[1, 0, 2], scores=[0.71, 0.9, 0.7]), [0.81, 0.79, 0.9])
    assert tested.keep(detections).tolist() == [True, False, False], "81 and 79 pixels, and a probability of 0.7"
    assert len(tested.assign_weights(detections).mask_weight) == 3


def test_s4m_takes_the_mask_at_the_points_and_leaves_class_and_score(stand_in: Sam) -> None:
    teacher = with_soft(
        instances([[32, 32, 64, 64], [70, 70, 90, 90]], labels=[1, 2], scores=[0.9, 0.8], size=(128, 128))
    )
    tested = method("s4m", points=16)  # all cells of the soft masks, whose mean is the centre of the box
    refined = tested.refine(torch.rand(3, 128, 128), teacher, 0.0)
    assert torch.equal(refined.labels, teacher.labels) and torch.equal(refined.scores, teacher.scores)
    assert torch.equal(refined.masks, instances([[32, 32, 64, 64], [64, 64, 96, 96]], size=(128, 128)).masks)
    targets = tested.assign_weights(refined)
    assert targets.mask_weight.tolist() == targets.class_weight.tolist() == [1, 1]
    assert len(tested.assign_weights(instances([[0, 0, 5, 5]])).instances) == 1, "a small mask of SAM's stays"


def test_sam_refined_weights_masks_by_sams_estimate_as_pais_does(stand_in: Sam) -> None:
    teacher = instances([[32, 32, 64, 64], [64, 64, 96, 96]], scores=[0.9, 0.36], mask_iou=[0.0, 0.2], size=(128, 128))
    tested = method("sam_refined")
    assert not tested.needs_soft_predictions and method("sam_refined", points=3).needs_soft_predictions
    assert tested.keep(teacher).all(), "the teacher's mask IoU judges no mask that SAM will replace"
    targets = tested.assign_weights(tested.refine(torch.rand(3, 128, 128), teacher, 0.0))
    pais = plugins.load("methods", "pais")
    expected = pais.Method(pais.Options()).assign_weights(replace(teacher, mask_iou=torch.tensor([0.9, 0.9])))
    for name in ("class_weight", "mask_weight", "box_weight"):
        torch.testing.assert_close(getattr(targets, name), getattr(expected, name))
    assert targets.background == expected.background
    assert len(tested.assign_weights(teacher).instances) == 0, "masks that stay the teacher's are filtered by its own"


def test_boxes_follow_masks_that_are_replaced_and_nothing_else_changes(stand_in: Sam) -> None:
    fabric = Fabric(accelerator="cpu", devices=1)
    image: Any = SimpleNamespace(weak=SimpleNamespace(image=torch.rand(3, 128, 128)), seed=3)
    teacher = instances([[32, 32, 60, 70]], size=(128, 128))
    off = plugins.load("methods", "mean_teacher")
    detections = [teacher]
    assert refine(off.Method(off.Options()), detections, [image], 0.0, fabric) is detections
    loose = [replace(teacher, boxes=teacher.boxes + torch.tensor([-0.4, -0.4, 0.4, 0.4]))]
    (refined,) = refine(method("sam_refined"), loose, [image], 0.0, fabric)
    assert refined.boxes.tolist() == [[32, 32, 60, 70]]


@pytest.mark.parametrize(
    ("name", "options"), [("s4m", {"pixels": 0, "guided_steps": 1}), ("sam_refined", {"points": 3})]
)
def test_two_steps_with_a_sam_from_its_folder_resume_bit_for_bit(
    name: str, options: dict[str, Any], folder: Callable[[str], Path], tmp_path: Path
) -> None:
    load_backend("torchvision/mask_rcnn")
    torch.set_num_threads(1)
    loose = {"score_threshold": 0.0, "sam": str(folder("sam2")), **options}
    values = study(
        methods={
            "supervised": {},
            "tested": {"name": name, "options": loose, "teacher": name == "s4m" and "supervised"},
        }
    )
    values["methods"]["tested"]["teacher"] = "supervised" if name == "s4m" else None
    values["training"] |= {"steps": 2, "milestones": [], "evaluate_every": 9, "checkpoint_every": 1}
    run = Study(**values).run(10, 1, "mask_rcnn", "tested")
    data = plugins.load("datasets", "shapes")
    data.Dataset(data.Options(train=40, val=2, size=64), None).prepare(tmp_path / "shapes", "shapes")
    stores = {part: Store.open(tmp_path / "shapes", part) for part in ("train", "val")}
    split = draw_split(stores["train"], run.dataset, run.split)

    def trainer(folder: Path, one: Any = run) -> Trainer:
        folder.mkdir(parents=True, exist_ok=True)
        fabric = Fabric(accelerator="cpu", devices=1)
        fabric.launch()
        return Trainer(one, stores, split, folder, fabric, results=tmp_path)

    if run.teacher:
        trainer(tmp_path / run.teacher.folder, run.teacher).fit()
    whole = trainer(tmp_path / "whole")
    whole.fit()
    first = trainer(tmp_path / "parts")
    with pytest.raises(Exception, match="stopped after step 1 of 2"):
        first.fit(progress=lambda line: setattr(first, "stopping", line["step"] == 1))
    second = trainer(tmp_path / "parts")
    second.fit()
    mine, theirs = second.models.student.state_dict(), whole.models.student.state_dict()
    assert all(torch.equal(mine[key], theirs[key]) for key in theirs)
    line = json.loads((tmp_path / "whole/log.jsonl").read_text().splitlines()[0])
    assert line["pseudo"]["kept_per_image"] > 0


def test_what_is_missing_of_a_sam_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "sam2"
    get = f"`hf download facebook/sam2-hiera-large --local-dir {path}` gets"
    with pytest.raises(BenchError, match=f"sam2: no such folder; `sam` names the folder of a SAM, which {get}"):
        Sam(path)
    path.mkdir()
    (path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(BenchError, match=r"sam2: holds no model\.safetensors; `sam` names"):
        Sam(path)
    (path / "model.safetensors").write_bytes(b"\x02" + bytes(7) + b"{}")
    with pytest.raises(BenchError, match="sam2: holds a network of the kind 'bert'; `sam` names the folder of SAM or"):
        Sam(path)
    (path / "config.json").write_text('{"model_type": "sam2"}')
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(BenchError, match=r"'transformers' is not installed .*install the extra 'pais-bench\[sam\]'"):
        Sam(path)
    (path / "config.json").write_text("{")
    with pytest.raises(BenchError, match=r"config\.json: not the configuration of a network; download it again"):
        Sam(path)


def test_a_sam_that_lacks_weights_is_refused(folder: Callable[[str], Path], tmp_path: Path) -> None:
    """transformers would draw them at random, with a warning at most."""
    transformers()
    from safetensors.torch import load_file, save_file

    path, whole = tmp_path / "sam", folder("sam")
    path.mkdir()
    (path / "config.json").write_text((whole / "config.json").read_text())
    weights = load_file(whole / "model.safetensors")
    del weights["mask_decoder.iou_token.weight"]
    save_file(weights, path / "model.safetensors", {"format": "pt"})
    with pytest.raises(BenchError, match=r"lacks weights of the network, such as mask_decoder\.iou_token\.weight"):
        Sam(path)
    (path / "model.safetensors").write_bytes((whole / "model.safetensors").read_bytes()[:5000])
    with pytest.raises(BenchError, match=r"sam: transformers cannot load it \(.*; download it again"):
        Sam(path)
