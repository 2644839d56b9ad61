"""The model card: every placeholder filled from the checkpoint, and nothing claimed that wasn't given."""

from huggingface_hub import ModelCard

from instructvla import InstructVLAConfig, InstructVLAForConditionalGeneration
from instructvla.model_card import markdown_table, render_model_card, render_tables, write_model_card
from instructvla.nano import nano_processor, untrained_nano


def test_card_states_the_checkpoints_own_facts():
    model = untrained_nano()
    card = render_model_card(model, "org/my-robot", {"SimplerEnv": "61.2 % of 288 episodes"})
    parameters = sum(parameter.numel() for parameter in model.parameters())
    for fact in (
        "my-robot",
        f"{parameters:,}",
        "block_causal",
        "| stage | 2, vision-language-action",
        "| untrained | 5 Hz |",
    ):
        assert fact in card, fact
    assert "| SimplerEnv | 61.2 % of 288 episodes |" in card
    assert "$" not in card


def test_card_says_when_nothing_was_evaluated_or_nothing_can_act():
    card = render_model_card(InstructVLAForConditionalGeneration(InstructVLAConfig.nano()), "org/chat")
    assert "No evaluation is recorded" in card
    assert "can chat, but not act" in card
    assert "with these ranges" not in card


def test_card_claims_nothing_of_a_model_that_is_yet_to_be_trained():
    model = untrained_nano(adapter_config={"experts": 1})
    model.processor = nano_processor(statistics=None, control_rate_hz=None)
    card = render_model_card(model, "org/fresh")
    assert "| stage | 1, action pre-training |" in card
    assert "trained for" not in card
    assert "has no statistics yet" in card


def test_card_does_not_give_the_weights_the_licence_of_the_code():
    card = ModelCard(render_model_card(untrained_nano(), "org/my-robot"))
    assert (card.data.license, card.data.license_name) == ("other", "see-model-card")
    assert "The weights keep the licences of what they were made from" in card.text


def test_card_is_written_as_readme_and_starts_with_its_metadata(tmp_path):
    write_model_card(untrained_nano(), tmp_path / "robot")
    text = (tmp_path / "robot" / "README.md").read_text()
    assert text.startswith("---\n")
    assert "library_name: transformers" in text
    assert "from_pretrained(" in text


def test_card_shows_the_tables_of_a_training_run_or_says_that_there_are_none():
    table = {"title": "Losses", "note": "Per batch.", "header": ["step", "loss"], "rows": [[1000, 0.123456]]}
    card = render_model_card(untrained_nano(), "org/my-robot", training={"tables": [table]})
    assert "### Losses\n\nPer batch.\n\n| step | loss |\n| --- | --- |\n| 1,000 | 0.1235 |\n" in card
    assert "No training run is recorded" not in card
    assert "No training run is recorded" in render_model_card(untrained_nano(), "org/my-robot")


def test_a_text_cannot_break_out_of_its_cell():
    assert markdown_table(["name"], [["a | b\n# c"], [None]]).splitlines()[2:] == [r"| a \| b # c |", "| – |"]
    assert render_tables([]) == ""
