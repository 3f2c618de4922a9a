from __future__ import annotations

from workbench._listing import Listing


def test_columns_line_up_in_text():
    text = repr(Listing("Runs", ("run", "steps"), [("first", 12), ("second", None)], "a hint"))
    assert text == "Runs\n  run     steps\n  first   12\n  second\na hint"


def test_an_empty_listing_is_its_title_and_hint():
    assert repr(Listing("Runs", ("run",), [], "none yet")) == "Runs\nnone yet"
    assert "|" not in Listing("Runs", ("run",), [])._repr_mimebundle_()["text/markdown"]


def test_names_are_data_in_markdown():
    listing = Listing("<b>", ("a|b",), [('<script>x</script>"><img onerror=y>',), ("`code` [link](x) *bold*\n# title",)])
    markdown = listing._repr_mimebundle_()["text/markdown"]
    assert "<" not in markdown
    assert "a\\|b" in markdown
    assert "\\`code\\` \\[link\\](x) \\*bold\\* \\# title" in markdown
