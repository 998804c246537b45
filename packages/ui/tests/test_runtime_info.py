# SPDX-License-Identifier: Apache-2.0
import json
import logging
from urllib.parse import urlsplit

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tradewind.ui import __version__, runtime_info
from tradewind.ui.exceptions import RuntimeInfoError, TradewindUIError
from tradewind.ui.runtime_info import DEFAULT_LINKS, Link, parse_color, parse_links, parse_text, read

DOCUMENT = json.dumps(
    {
        "version": "1.4.0",
        "airflow": "3.3.2",
        "python": "3.13",
        "debian": "13",
        "variant": "slim",
        "components": {"tradewind-ui": "0.1.0"},
        "built": "2026-11-22T12:00:00Z",
    }
)


def test_the_images_file_gives_the_facts():
    info, problems = read({}, DOCUMENT)
    assert problems == []
    assert info.as_dict() == {
        "product": "Tradewind Runtime",
        "ui": __version__,
        "version": "1.4.0",
        "airflow": "3.3.2",
        "python": "3.13",
        "debian": "13",
        "variant": "slim",
        "components": {"tradewind-ui": "0.1.0"},
        "built": "2026-11-22T12:00:00Z",
        "image_tag": None,
        "environment_name": None,
        "environment_color": None,
        "links": ({"label": DEFAULT_LINKS[0].label, "url": DEFAULT_LINKS[0].url},),
    }


def test_the_facts_are_json():
    assert json.loads(json.dumps(read({}, DOCUMENT)[0].as_dict()))["version"] == "1.4.0"


def test_outside_the_image_only_this_package_and_airflow_are_named():
    info, problems = read({}, None, airflow="3.3.2")
    assert (info.product, info.version, info.image_tag, info.airflow) == ("Tradewind UI", None, None, "3.3.2")
    assert problems == []


def test_the_installed_airflow_wins_over_the_one_that_the_image_was_built_with():
    assert read({}, DOCUMENT, airflow="3.3.9")[0].airflow == "3.3.9"


def test_environment_variables_win_over_the_file():
    environ = {
        "TRADEWIND_RUNTIME_VERSION": "1.4.1",
        "TRADEWIND_IMAGE_TAG": " 1.4.1-slim ",
        "TRADEWIND_ENVIRONMENT_NAME": "Zürich production",
        "TRADEWIND_ENVIRONMENT_COLOR": "#c00",
        "TRADEWIND_LINKS": '[{"label": "Runbook", "url": "https://wiki.example.org/"}]',
    }
    info, problems = read(environ, DOCUMENT)
    assert problems == []
    assert info.version == "1.4.1"
    assert info.image_tag == "1.4.1-slim"
    assert info.environment_name == "Zürich production"
    assert info.environment_color == "#c00"
    assert info.links == (Link("Runbook", "https://wiki.example.org/"),)


def test_an_empty_variable_is_one_that_is_not_set():
    info, problems = read({"TRADEWIND_LINKS": "", "TRADEWIND_IMAGE_TAG": " "}, DOCUMENT)
    assert (info.links, info.image_tag, problems) == (DEFAULT_LINKS, None, [])


@pytest.mark.parametrize("document", ["", "{", "[]", "null", "[" * 100_000])
def test_a_broken_file_is_one_problem_and_no_facts(document):
    info, (problem,) = read({}, document)
    assert info.version is None
    assert "/etc/tradewind/runtime.json" in problem
    assert "JSON object" in problem


def test_a_wrong_fact_in_the_file_is_left_out_and_the_others_stay():
    info, problems = read({}, json.dumps({"version": "1.4.0", "python": 3.13, "components": ["ui"]}))
    assert (info.version, info.python, info.components) == ("1.4.0", None, {})
    assert len(problems) == 2
    assert "python" in problems[0]
    assert "3.13" in problems[0]
    assert "components" in problems[1]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("TRADEWIND_LINKS", "not json"),
        ("TRADEWIND_LINKS", '{"label": "a", "url": "https://a.example/"}'),
        ("TRADEWIND_IMAGE_TAG", "a\nb"),
        ("TRADEWIND_IMAGE_TAG", "x" * 201),
        ("TRADEWIND_RUNTIME_VERSION", "\x1b[31m1"),
        ("TRADEWIND_ENVIRONMENT_NAME", "\u202eevil"),
        ("TRADEWIND_ENVIRONMENT_COLOR", "red;background:url(//x)"),
    ],
)
def test_a_malformed_variable_means_the_default_and_one_message_naming_it(name, value):
    info, (problem,) = read({name: value}, DOCUMENT)
    assert info == read({}, DOCUMENT)[0]
    assert problem.startswith(name)
    assert "expected" in problem
    assert "\n" not in problem


@pytest.mark.parametrize("color", ["#c00", "#CC0000", "rebeccapurple", "Red", " #abc "])
def test_colours_that_are_safe_in_a_style_sheet_are_taken(color):
    assert parse_color("COLOR", color) == color.strip()


@pytest.mark.parametrize("color", ["#c0", "#c0000", "#ggg", "red;", "rgb(1,2,3)", "var(--x)", "", "a" * 31, "#abc\n#"])
def test_any_other_colour_is_refused(color):
    with pytest.raises(RuntimeInfoError, match="#rrggbb"):
        parse_color("COLOR", color)


@pytest.mark.parametrize(
    "url",
    [
        "javascript:alert(1)",
        "JaVaScRiPt:alert(1)",
        "java\nscript:alert(1)",
        " https://a.example/",
        "data:text/html,x",
        "//a.example/",
        "/relative",
        "https:a.example",
        "https://",
        "https:///path",
        "https://a.example:port/",
        "https://a.example\\@b.example/",
        "https://user:secret@a.example/",
        "https://a.example/ü",
        "ftp://a.example/",
        "",
    ],
)
def test_only_absolute_web_urls_are_links(url):
    with pytest.raises(RuntimeInfoError, match="http:// or https://"):
        parse_links("LINKS", json.dumps([{"label": "a", "url": url}]))


@pytest.mark.parametrize(
    "items",
    [
        [{"label": "a"}],
        [{"label": "a", "url": "https://a.example/", "onclick": "x"}],
        [{"label": 1, "url": "https://a.example/"}],
        [{"label": "", "url": "https://a.example/"}],
        [{"label": "x" * 61, "url": "https://a.example/"}],
        ["https://a.example/"],
        [{"label": "a", "url": "https://a.example/"}] * 11,
    ],
)
def test_a_list_of_something_else_is_refused(items):
    with pytest.raises(RuntimeInfoError, match="LINKS"):
        parse_links("LINKS", json.dumps(items))


def test_the_message_counts_from_one_and_shows_the_bad_url():
    items = [{"label": "a", "url": "https://a.example/"}, {"label": "b", "url": "ftp://b.example/"}]
    with pytest.raises(RuntimeInfoError, match=r"LINKS, item 2 has the url 'ftp://b\.example/'"):
        parse_links("LINKS", json.dumps(items))


@pytest.mark.parametrize(
    "value",
    [
        '[{"label": "a", "url": "https://user:hunter2@a.example/"}]',
        '[{"label": "a", "url": "https://user:hunter2@a.example/"}',
        '{"label": "a", "url": "https://user:hunter2@a.example/"}',
        '[{"label": 1, "url": "https://user:hunter2@a.example/"}]',
    ],
)
def test_no_message_holds_the_password_of_a_url(value):
    with pytest.raises(RuntimeInfoError) as caught:
        parse_links("LINKS", value)
    assert "hunter2" not in str(caught.value)


def test_an_empty_list_means_no_links():
    assert parse_links("LINKS", "[]") == ()


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(["label", "url"]) | st.text(), inner),
)
URLS = st.text() | st.builds("{}{}".format, st.sampled_from(["http://", "https://", "javascript:"]), st.text())
LINK_LISTS = st.lists(st.fixed_dictionaries({"label": st.text(), "url": URLS}))


@given(st.text() | st.builds(json.dumps, JSON) | st.builds(json.dumps, LINK_LISTS))
@example('[{"label": "a", "url": "http://[::1"}]')
@example("[" * 100_000)
def test_whatever_the_variable_holds_the_links_are_safe_or_refused(value):
    try:
        links = parse_links("LINKS", value)
    except RuntimeInfoError as error:
        assert str(error).startswith("LINKS")  # noqa: PT017 (both outcomes are right, and both are checked)
        return
    for link in links:
        parts = urlsplit(link.url)
        assert parts.scheme in {"http", "https"}
        assert parts.hostname
        assert parts.username is None
        assert link.url.isascii()
        assert link.url.isprintable()
        assert " " not in link.url
        assert link.label.strip()
        assert link.label.isprintable()


@given(
    st.lists(
        st.builds(
            Link,
            st.text(st.characters(codec="utf-8", categories=["L", "N"]), min_size=1, max_size=60),
            st.from_regex(r"https?://[a-z]{1,20}\.example(:[0-9]{1,4})?/[a-z0-9/?=&%#.]{0,20}", fullmatch=True),
        ),
        max_size=10,
    )
)
def test_well_formed_links_are_read_as_they_are(links):
    value = json.dumps([{"label": link.label, "url": link.url} for link in links])
    assert parse_links("LINKS", value) == tuple(links)


@given(st.dictionaries(st.sampled_from(["TRADEWIND_LINKS", "TRADEWIND_IMAGE_TAG"]), st.text()), st.text())
def test_reading_never_fails(environ, document):
    info, problems = read(environ, document)
    assert len(problems) <= 3
    assert info.product in {"Tradewind Runtime", "Tradewind UI"}


def test_text_keeps_what_people_typed_inside():
    assert parse_text("NAME", " a <b> c ") == "a <b> c"


def test_errors_are_the_packages_own_and_value_errors():
    assert issubclass(RuntimeInfoError, TradewindUIError)
    assert issubclass(RuntimeInfoError, ValueError)


@pytest.fixture
def fresh_load(monkeypatch):
    monkeypatch.setenv("TRADEWIND_LINKS", "[oops")
    runtime_info.load.cache_clear()
    yield runtime_info.load
    runtime_info.load.cache_clear()


def test_a_process_warns_once_about_a_malformed_variable(fresh_load, caplog):
    with caplog.at_level(logging.WARNING, logger="tradewind.ui.runtime_info"):
        assert fresh_load() is fresh_load()
    (record,) = caplog.records
    assert "TRADEWIND_LINKS" in record.getMessage()
    assert "[oops" in record.getMessage()
    assert fresh_load().links == DEFAULT_LINKS


def test_the_loaded_airflow_version_is_the_installed_one(fresh_load):
    from importlib.metadata import version

    assert fresh_load().airflow == version("apache-airflow-core")
