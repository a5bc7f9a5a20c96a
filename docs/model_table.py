"""Writes the table of model families in docs/models.md from the model cards and the tests that show each claim.

``python docs/model_table.py``   writes the table anew
A claim stands in the table only with a test of that name in the suite; ``Testing/test_model_table.py`` holds this.
"""

from __future__ import annotations

import ast
import json
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
PAGE = ROOT / "docs" / "models.md"
COSTS = ROOT / "docs" / "benchmarks" / "families.json"
BEGIN, END = "<!-- table: written by docs/model_table.py -->", "<!-- end of the table -->"
CLAIMS = {
    "strict": "loads its original layout strictly",
    "equal": "equal to a reference",
    "propagates": "propagation",
    "policies": "all memory policies run",
    "half": "bf16 or fp16",
}
EVIDENCE: dict[str, dict[str, tuple[str, str]]] = {
    "classic": {
        "propagates": ("test_classic.py", "test_propagation_follows_an_object_that_moves_and_shrinks"),
        "policies": ("test_every_policy.py", "test_every_policy_runs_both_ways_and_gives_the_same_twice"),
    },
    "embedded": {
        "equal": ("../finetune/test_embedded_training.py", "test_the_exported_network_equals_the_trained_one"),
        "propagates": ("test_embedded.py", "test_a_session_outlines_and_propagates_with_a_network_file"),
        "policies": ("test_every_policy.py", "test_every_policy_runs_both_ways_and_gives_the_same_twice"),
    },
    "sam2": {
        "strict": ("test_networks_sam2.py", "test_missing_extra_and_reshaped_keys_are_named"),
        "equal": ("test_oracle_sam2_session.py", "test_prompts_and_propagation_equal_the_reference"),
        "propagates": ("test_sam2.py", "test_a_session_tracks_several_objects_with_it"),
        "policies": ("test_every_policy.py", "test_every_policy_runs_both_ways_and_gives_the_same_twice"),
        "half": ("test_sam2.py", "test_half_precision_stays_close"),
    },
    "edgetam": {
        "strict": ("test_edgetam.py", "test_a_checkpoint_of_the_published_layout_loads_strictly"),
        "equal": ("test_oracle_edgetam_session.py", "test_prompts_and_propagation_equal_the_reference"),
        "propagates": ("test_edgetam.py", "test_every_policy_runs_it_both_ways_and_gives_the_same_twice"),
        "policies": ("test_edgetam.py", "test_every_policy_runs_it_both_ways_and_gives_the_same_twice"),
        "half": ("test_sam2.py", "test_half_precision_stays_close"),
    },
    "efficient_tam": {
        "strict": ("test_efficient_tam.py", "test_a_checkpoint_of_the_published_layout_loads_strictly"),
        "equal": ("test_networks_efficient_tam.py", "test_random_weights_give_what_the_published_source_gives"),
        "propagates": ("test_efficient_tam.py", "test_every_policy_runs_it_both_ways_and_gives_the_same_twice"),
        "policies": ("test_efficient_tam.py", "test_every_policy_runs_it_both_ways_and_gives_the_same_twice"),
        "half": ("test_efficient_tam.py", "test_a_half_precision_model_answers_nearly_the_same"),
    },
    "sam3_tracker": {
        "strict": ("test_sam3_tracker.py", "test_weights_load_strictly_and_answer_as_before"),
        "equal": ("test_sam3_tracker.py", "test_prompts_and_propagation_equal_transformers"),
        "propagates": ("test_sam3_tracker.py", "test_every_policy_runs_it_both_ways_and_gives_the_same_twice"),
        "policies": ("test_sam3_tracker.py", "test_every_policy_runs_it_both_ways_and_gives_the_same_twice"),
        "half": ("test_sam3_tracker.py", "test_half_precision_answers_nearly_the_same"),
    },
    "sam": {
        "strict": ("test_sam.py", "test_a_checkpoint_of_the_published_layout_loads_strictly"),
        "equal": ("test_oracle_sam.py", "test_prompts_and_masks_are_equal"),
        "propagates": (
            "test_sam.py",
            "test_a_session_on_the_phantom_runs_from_prompt_to_volume_and_gives_the_same_twice",
        ),
        "policies": ("test_sam.py", "test_every_policy_runs"),
        "half": ("test_sam.py", "test_half_precision_gives_nearly_the_same_mask"),
    },
    "tinyvit_sam": {
        "strict": ("test_tinyvit_sam.py", "test_a_checkpoint_of_the_published_layout_loads_strictly"),
        "equal": ("test_tinyvit_sam.py", "test_masks_are_what_the_published_source_computes"),
        "propagates": ("test_tinyvit_sam.py", "test_a_volume_is_gone_through_both_ways_and_twice_the_same"),
        "policies": ("test_chaining.py", "test_every_policy_that_chooses_memories_works"),
        "half": ("test_tinyvit_sam.py", "test_lower_precision_gives_nearly_the_same_logits"),
    },
    "sam_med2d": {
        "strict": ("test_sam_med2d.py", "test_a_checkpoint_loads_strictly_with_its_adapters_or_without"),
        "equal": ("test_sam_med2d.py", "test_the_answers_are_those_of_the_published_code"),
        "propagates": ("test_sam_med2d.py", "test_a_session_on_the_phantom_takes_a_box_and_a_click_and_propagates"),
        "policies": ("test_chaining.py", "test_every_policy_that_chooses_memories_works"),
    },
    "sam_unet": {
        "strict": ("test_sam_unet.py", "test_a_checkpoint_of_the_published_layout_loads_strictly"),
        "equal": ("test_sam_unet.py", "test_the_answer_is_that_of_the_published_code"),
        "propagates": ("test_sam_unet.py", "test_a_session_on_the_phantom_takes_a_box_and_propagates"),
        "policies": ("test_chaining.py", "test_every_policy_that_chooses_memories_works"),
    },
    "scribble_unet": {
        "strict": ("test_scribble_unet.py", "test_a_checkpoint_of_the_published_layout_loads_strictly"),
        "equal": ("test_scribble_unet.py", "test_the_answer_is_that_of_the_published_code"),
        "propagates": ("test_scribble_unet.py", "test_propagation_follows_a_bright_column_and_stops_where_it_ends"),
        "policies": ("test_chaining.py", "test_every_policy_that_chooses_memories_works"),
        "half": ("test_scribble_unet.py", "test_half_precision_stays_close"),
    },
    "nninteractive_remote": {
        "equal": ("test_nninteractive.py", "test_the_volume_is_sent_raw_in_array_order_and_a_click_reversed"),
        "propagates": ("../test_volume_model_session.py", ""),
    },
}
"""By family and claim, the file (beside Testing/models) and the test; without a test, any of the file."""
AGAINST = {
    "embedded": "the network in torch",
    "sam2": "PyPI sam2, transformers",
    "edgetam": "transformers",
    "efficient_tam": "golden values of the published source",
    "sam3_tracker": "transformers",
    "sam": "segment-anything; SAM-HQ: transformers",
    "tinyvit_sam": "golden values of the published source; timm, segment-anything",
    "sam_med2d": "golden values of the published source",
    "sam_unet": "golden values of the published source",
    "scribble_unet": "golden values of the published source",
    "nninteractive_remote": "its protocol, against a stand-in",
}
_BY_SLICE = ("sam", "tinyvit_sam", "sam_med2d", "sam_unet", "scribble_unet")
HOW = {**dict.fromkeys(_BY_SLICE, "slice by slice"), "nninteractive_remote": "whole volume"}
"""How it propagates, where that is not by memory."""


def tests_of(file: str) -> set[str]:
    """Names of the tests in a file beside Testing/models."""
    tree = ast.parse((ROOT / "Testing" / "models" / file).read_text(encoding="utf-8"))
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")}


def is_shown(family: str, claim: str) -> bool:
    """Whether a test of the suite shows it."""
    file, name = EVIDENCE.get(family, {}).get(claim, ("", ""))
    return bool(file) and (name in tests_of(file) if name else bool(tests_of(file)))


def table() -> str:
    """Markdown."""
    from SegmentAnythingMedLib.models.registry import ModelRegistry

    costs = json.loads(COSTS.read_text(encoding="utf-8")) if COSTS.is_file() else {"costs": []}
    seconds = {one["model"]: one["encode_s"] + one["answer_s"] for one in costs["costs"]}
    cards: dict[str, list] = {}
    for card in ModelRegistry([ROOT / "Resources" / "ModelCards"]).cards:
        cards.setdefault(card.family, []).append(card)
    titles = ["family", "models", "prompts of its own", *CLAIMS.values(), "seconds a slice", "licence of the weights"]
    lines = ["| " + " | ".join(titles) + " |", "|---" * len(titles) + "|"]
    for family in EVIDENCE:
        lines.append("| " + " | ".join(_row(family, cards.get(family, []), seconds)) + " |")
    processor = costs.get("processor", "not measured")
    lines += [
        "",
        f"Seconds: features of a 512 x 512 slice and a mask from a box, random weights, one thread, fp32, {processor}",
        "(`python -m SegmentAnythingMedLib.benchmark families`); of several models the fastest and the slowest.",
        "Tested on a CPU only: no CUDA or MPS was there.",
    ]
    return "\n".join(lines)


def _row(family: str, cards: list, seconds: dict[str, float]) -> list[str]:
    measured = sorted(seconds[card.name] for card in cards if card.name in seconds)
    cost = "-" if not measured else "–".join(dict.fromkeys(f"{value:.2g}" for value in (measured[0], measured[-1])))
    licences = dict.fromkeys(
        card.licence.partition(" (")[0] + " (research only)" * card.research_only for card in cards
    )
    names = ", ".join(card.name for card in cards) or "by your own card"
    kinds = ", ".join(dict.fromkeys(kind for card in cards for kind in card.prompts)) or "point, box"
    cells = []
    for claim in CLAIMS:
        text = {"equal": AGAINST.get(family, "yes"), "propagates": HOW.get(family, "memory")}.get(claim, "yes")
        cells.append(text if is_shown(family, claim) else "-")
    return [f"`{family}`", names, kinds, *cells, cost, "; ".join(licences) or "none published"]


def _licence(card: object) -> str:
    return card.licence.partition(" (")[0] + " (research only)" * card.research_only


def page(text: str) -> str:
    """The page with the table between its marks written anew."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{table()}\n{END}{after}"


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
