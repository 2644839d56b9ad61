"""Pages from templates: text is escaped, and what a template misses is an error."""

import sys

import pytest
from jinja2 import UndefinedError

from instructvla.training.data.html_page import render_html


@pytest.fixture
def template(tmp_path):
    (tmp_path / "style.css").write_text("p {color: red}")
    file = tmp_path / "page.html.jinja"
    file.write_text("<style>{% include 'style.css' %}</style><p>{{ said }}</p>")
    return file


def test_text_is_escaped_and_files_beside_the_template_are_included(template):
    page = render_html(template, said="<b>5 & 6</b>")
    assert page == "<style>p {color: red}</style><p>&lt;b&gt;5 &amp; 6&lt;/b&gt;</p>"


def test_a_value_that_is_missing_is_an_error(template):
    with pytest.raises(UndefinedError, match="'said' is undefined"):
        render_html(template, told="hello")


def test_without_jinja2_the_package_is_named(template, monkeypatch):
    monkeypatch.setitem(sys.modules, "jinja2", None)
    with pytest.raises(ModuleNotFoundError, match="pip install jinja2"):
        render_html(template, said="hello")
