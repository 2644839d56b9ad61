"""Prompts, ids, labels and chat through the processor. Ids are integers, so every comparison is exact."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoTokenizer

from instructvla.processing import InstructVLAProcessor, released_chat_template
from tests.parity import load_fixture
from tests.tiny_processor import tiny_processor

TENSORS, META = load_fixture("prompts_labels")
CASES = [name for name, case in META["cases"].items() if "target_text" in case]
REAL_TOKENIZER = Path(__file__).parents[2] / "shared" / "data" / "tokenizer_eagle2_qwen"


@pytest.fixture(scope="module")
def processor() -> InstructVLAProcessor:
    return tiny_processor()


@pytest.fixture
def frame() -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (24, 32, 3), np.uint8))


def user(*parts) -> dict:
    return {"role": "user", "content": [p if isinstance(p, dict) else {"type": "text", "text": p} for p in parts]}


def conversation(case: dict, image=None) -> list[dict]:
    """A fixture's messages with its images as content blocks."""
    messages = []
    for message in case["messages"]:
        content = message["content"]
        if "image" in message:
            block = {"type": "image"} if image is None else {"type": "image", "image": image}
            content = [block] * case["n_tiles"] + [{"type": "text", "text": content}]
        messages.append({"role": message["role"], "content": content})
    return messages


def tokenized(processor: InstructVLAProcessor, messages: list, **options):
    return processor.apply_chat_template(
        messages, tokenize=True, return_dict=True, return_assistant_tokens_mask=True, **options
    )


def labels(inputs) -> torch.Tensor:
    return inputs["input_ids"].where(torch.as_tensor(inputs["assistant_masks"]).bool(), -100)


# Released prompts


@pytest.mark.parametrize("case", CASES)
def test_prompt_text_equals_the_released_one(processor, case):
    case = META["cases"][case]
    assert processor.apply_chat_template(conversation(case)) == case["text"]


@pytest.mark.parametrize("case", CASES)
def test_ids_and_labels_equal_the_released_ones(processor, frame, case):
    inputs = tokenized(processor, conversation(META["cases"][case], frame))
    assert torch.equal(inputs["input_ids"][0], TENSORS[f"{case}.input_ids"])
    assert torch.equal(labels(inputs)[0], TENSORS[f"{case}.labels"])
    tiles = META["cases"][case]["n_tiles"]
    assert ("pixel_values" in inputs) == (tiles > 0)
    assert tiles == 0 or inputs["pixel_values"].shape == (tiles, 3, 28, 28)


@pytest.mark.parametrize("side", ["right", "left"])
def test_a_padded_batch_carries_the_released_ids_mask_and_labels(processor, frame, side):
    rows = [conversation(META["cases"][name], frame) for name in META["batch_rows"]]
    inputs = tokenized(processor, rows, processor_kwargs={"padding_side": side})
    for index, mask in enumerate(TENSORS["batch.attention_mask"]):
        length = int(mask.sum())
        kept = slice(0, length) if side == "right" else slice(-length, None)
        assert inputs["attention_mask"][index].sum() == inputs["attention_mask"][index, kept].sum() == length
        assert torch.equal(inputs["input_ids"][index, kept], TENSORS["batch.input_ids"][index, :length])
        assert torch.equal(labels(inputs)[index, kept], TENSORS["batch.labels"][index, :length])
        assert (labels(inputs)[index] != -100).sum() == (TENSORS["batch.labels"][index] != -100).sum()
    if side == "right":
        assert torch.equal(inputs["input_ids"], TENSORS["batch.input_ids"])
        assert torch.equal(inputs["attention_mask"].bool(), TENSORS["batch.attention_mask"])


def test_the_tokenizers_padding_side_is_left_until_it_is_set(frame):
    processor = tiny_processor()
    texts = ["go", "go a long way"]
    assert processor([frame] * 2, texts)["attention_mask"][0].tolist()[:3] == [0, 0, 0]
    processor.tokenizer.padding_side = "right"
    assert processor([frame] * 2, texts)["attention_mask"][0].tolist()[-3:] == [0, 0, 0]


@pytest.mark.parametrize(("response", "suffix"), [(None, ""), ("motion", " Give both"), ("answer", " First answer")])
def test_action_prompt_ends_where_the_model_goes_on(processor, response, suffix):
    prompt = processor.action_prompt("stack the blocks", response)
    assert f"What action should the robot take to stack the blocks?{suffix}" in prompt
    assert prompt.endswith("<|im_end|>\n<|im_start|>assistant\n")


def test_instruction_that_asks_for_an_answer_gives_the_released_ids(processor, frame):
    inputs = processor(images=frame, text="stack the blocks", response="answer")
    assert torch.equal(inputs["input_ids"][0], TENSORS["generate.input_ids"])
    assert processor.action_prompt("stack the blocks", "answer") == META["cases"]["generate"]["text"]


@pytest.mark.parametrize(
    ("case", "response"), [("action", None), ("primitive_and_action", "motion"), ("first_answer", "answer")]
)
def test_action_prompt_is_the_beginning_of_the_training_text(processor, case, response):
    text = META["cases"][case]["text"]
    instruction = text.split(" take to ")[1].split("?")[0]
    assert text.startswith(processor.action_prompt(instruction, response))


@pytest.mark.parametrize("name", list(META["real_qwen25_ids"]))
def test_the_real_tokenizer_gives_the_released_ids(frame, name):
    if not REAL_TOKENIZER.is_dir():
        pytest.skip(f"the Eagle2 tokenizer is not at {REAL_TOKENIZER}")
    tokenizer = AutoTokenizer.from_pretrained(REAL_TOKENIZER)
    tokenizer.add_tokens([f"<new_token_{index}>" for index in range(64)], special_tokens=True)
    processor = InstructVLAProcessor(tokenizer)
    case = META["real_qwen25_ids"][name]
    expected = []
    for entry in case["ids"]:
        token, count = entry if isinstance(entry, list) else (entry, 1)
        expected += [token if isinstance(token, int) else tokenizer.convert_tokens_to_ids(token)] * count
    question = case["text"].split("</img>\n")[1].split("<|im_end|>")[0]
    answer = case["text"].split("assistant\n")[1].split("<|im_end|>")[0]
    messages = [user({"type": "image", "image": frame}, question)]
    messages += [{"role": "assistant", "content": answer}] if answer else []
    inputs = tokenized(processor, messages, add_generation_prompt=not answer)
    assert inputs["input_ids"][0].tolist() == expected
    assert len(expected) == case["n_tokens"]
    start = expected.index(77091) + 2  # "assistant" and the newline after it
    assert labels(inputs)[0].tolist() == [-100] * start + (expected[start:-1] + [-100] if answer else [])
    assert processor.query_token_ids == list(range(151674, 151738))
    assert tokenizer.decode(processor.space_token_ids) == " "


# Chat


def test_string_and_list_content_give_the_same_text(processor):
    assert processor.apply_chat_template([{"role": "user", "content": "Say hi."}]) == processor.apply_chat_template(
        [user("Say ", "hi.")]
    )


def test_the_system_message_is_only_the_default(processor):
    messages = [{"role": "system", "content": "Be brief."}, user("Say hi.")]
    assert processor.apply_chat_template(messages).startswith(
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user"
    )


def test_images_are_numbered_through_the_turns_and_come_before_the_text(processor, frame):
    image = {"type": "image", "image": frame}
    messages = [user("first", image), {"role": "assistant", "content": "yes"}, user(image, "second")]
    text = processor.apply_chat_template(messages, add_generation_prompt=True)
    block = "<img>" + "<IMG_CONTEXT>" * 4 + "</img>\n"
    assert f"user\n<image 1>{block}first<|im_end|>" in text
    assert f"user\n<image 2>{block}second<|im_end|>\n<|im_start|>assistant\n" in text
    inputs = processor.apply_chat_template(messages, add_generation_prompt=True, tokenize=True, return_dict=True)
    assert processor.decode(inputs["input_ids"][0]) == text
    assert inputs["pixel_values"].shape == (2, 3, 28, 28)


def test_a_batch_mixes_conversations_with_and_without_images(processor, frame):
    other = frame.transpose(Image.Transpose.FLIP_TOP_BOTTOM)
    image, second = ({"type": "image", "image": picture} for picture in (frame, other))
    rows = [[user(image, "what?")], [user("hello")], [user(second, image, "which?")]]
    inputs = processor.apply_chat_template(rows, add_generation_prompt=True, tokenize=True, return_dict=True)
    texts = [processor.apply_chat_template(row, add_generation_prompt=True) for row in rows]
    images = [[frame], None, [other, frame]]
    alone = [processor(given, text) for given, text in zip(images, texts, strict=True)]
    assert torch.equal(inputs["pixel_values"], torch.cat([alone[0]["pixel_values"], alone[2]["pixel_values"]]))
    for ids, mask, row in zip(inputs["input_ids"], inputs["attention_mask"], alone, strict=True):
        assert torch.equal(ids[mask.bool()], row["input_ids"][0])


def test_a_formatted_prompt_gives_the_same_inputs_as_its_messages(processor, frame):
    messages = [user({"type": "image", "image": frame}, "what?")]
    direct = processor.apply_chat_template(messages, tokenize=True, return_dict=True)
    formatted = processor(text=processor.apply_chat_template(messages), images=frame)
    assert set(direct) == set(formatted) == {"input_ids", "attention_mask", "pixel_values"}
    assert all(torch.equal(direct[name], formatted[name]) for name in direct)


def test_chat_alone_needs_no_image_and_no_statistics():
    inputs = tiny_processor(statistics=None)(text="<|im_start|>user\nhi<|im_end|>\n")
    assert set(inputs) == {"input_ids", "attention_mask"}


def test_the_mask_covers_text_of_several_bytes_and_a_final_space(processor):
    messages = [user("¿qué?"), {"role": "assistant", "content": " Müller 🤖 "}]
    inputs = tokenized(processor, messages)
    kept = inputs["input_ids"][0][labels(inputs)[0] != -100]
    assert processor.decode(kept) == " Müller 🤖 <|im_end|>"


@pytest.mark.parametrize("images", [None, 1, 3])
def test_images_must_match_the_image_tokens_of_the_prompt(processor, frame, images):
    text = processor.apply_chat_template([user({"type": "image"}, {"type": "image"}, "compare")])
    given = None if images is None else [frame] * images
    with pytest.raises(ValueError, match=r"each takes 4 <IMG_CONTEXT> tokens, but the prompts hold \[8\]"):
        processor(text=text, images=given)


def test_images_of_a_batch_must_match_prompt_by_prompt(processor, frame):
    image = {"type": "image"}
    texts = [processor.apply_chat_template([user(*[image] * count, "what?")]) for count in (1, 2)]
    assert processor(text=texts, images=[[frame], [frame] * 2])["pixel_values"].shape[0] == 3
    with pytest.raises(ValueError, match=r"got \[2, 1\] image\(s\).*hold \[4, 8\]"):
        processor(text=texts, images=[[frame] * 2, [frame]])


def test_a_template_of_another_image_size_is_noticed(frame):
    with pytest.raises(ValueError, match=r"each takes 4 <IMG_CONTEXT> tokens, but the prompts hold \[9\]"):
        tiny_processor(chat_template=released_chat_template(9))(frame, "go")


@pytest.mark.parametrize(
    ("messages", "message"),
    [
        ([], "non-empty list of messages"),
        ([[]], "non-empty list of messages"),
        ("hello", "non-empty list of messages"),
        ([{"role": "tool", "content": "x"}], r"role of \['system', 'user', 'assistant'\]"),
        ([{"role": "user"}], "string or a list as content, got None"),
        ([user({"text": "x"})], "message 0 .*holds {'text': 'x'}"),
        ([user({"type": "video", "video": "x"})], "message 0 .*'video'"),
        ([{"role": "assistant", "content": [{"type": "image"}]}], "message 0 .assistant. holds"),
    ],
)
@pytest.mark.parametrize("tokenize", [True, False])
def test_malformed_conversations_are_refused(processor, messages, message, tokenize):
    with pytest.raises(ValueError, match=message):
        processor.apply_chat_template(messages, tokenize=tokenize, return_dict=True)


def test_an_unreadable_image_of_a_message_is_named(processor, frame, tmp_path):
    with pytest.raises(ValueError, match=r"images\[1\] can't be read from '.*none.png'"):
        processor.apply_chat_template(
            [user({"type": "image", "image": frame}, {"type": "image", "url": str(tmp_path / "none.png")})],
            tokenize=True,
            return_dict=True,
        )
