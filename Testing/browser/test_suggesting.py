"""The row that suggests prompts, in the browser."""

from __future__ import annotations

from browser.app_page import AppPage
from browser.test_workflow import draw_box


def test_prompts_are_suggested_from_an_accepted_segment_and_from_what_stands_out(page: AppPage) -> None:
    source, given = page.tab.locator("[data-field=suggestion]"), page.tab.locator("[data-field=suggestion-input]")
    before = [one["key"] for one in page.panel["suggestion"]["inputs"] if one["key"]]  # of tests before this one
    if not before:
        assert given.inner_text() == "No segment yet" and page.tab.locator("[data-action=suggest]").is_disabled()
    draw_box(page)
    page.press("accept")
    page.until("panel.status.startsWith('Accepted')")
    page.press("clear")
    page.until("!panel.allowed.includes('clear')")
    page.until(f"panel.suggestion.inputs.length === {len(before) + 1} && panel.allowed.includes('suggest')")
    own = page.panel["segments"][0]["name"]  # those of the segmentation at hand come first, by their name alone
    page.until(f"panel.suggestion.inputs[0].label === '{own}'")
    page.trigger("choose_suggestion", "rough_mask", page.panel["suggestion"]["inputs"][0]["key"])
    page.until("panel.suggestion.chosen === panel.suggestion.inputs[0].key")
    page.press("suggest")
    page.until("panel.status.startsWith('A box and') && panel.quality !== null && panel.allowed.includes('clear')")
    page.press("undo-prompt")
    page.until("!panel.allowed.includes('clear')")

    source.select_option("saliency")
    page.until("panel.suggestion.source === 'saliency' && !panel.suggestion.isChoice")
    page.press("suggest")
    page.until("panel.status.startsWith('1 click')")
    page.trigger("choose_suggestion", "prototypes", 3)
    page.until("panel.status.includes('is not known') && panel.suggestion.source === 'saliency'")
    source.select_option("ruler")
    page.until("panel.suggestion.inputs[0].label === 'No ruler yet'")
