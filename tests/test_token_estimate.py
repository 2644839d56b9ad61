"""Claims about the estimate of tokens."""

import base64

from instructvla.training.annotation.token_estimate import estimated_tokens
from tests.memory_episodes import jpeg


def picture(content):
    return {"type": "image_url", "image_url": {"url": content}}


def test_texts_count_by_their_length_and_pictures_by_their_tiles():
    text = {"role": "user", "content": "x" * 40}
    assert estimated_tokens([text]) == 14
    assert estimated_tokens([text, text]) == 28
    small, wide = (f"data:image/jpeg;base64,{base64.b64encode(jpeg(0, size)).decode()}" for size in (256, 600))
    parts = [{"type": "text", "text": "x" * 40}, picture(small)]
    assert estimated_tokens([{"role": "user", "content": parts}]) == 14 + 85 + 170
    assert estimated_tokens([{"role": "user", "content": [picture(wide)]}]) == 4 + 85 + 4 * 170


def test_a_linked_picture_counts_as_one_tile():
    content = [picture("https://example.com/frame.jpg")]
    assert estimated_tokens([{"role": "user", "content": content}]) == 4 + 85 + 170
