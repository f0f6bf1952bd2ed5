"""Readers keep the text of a page and leave its furniture and markup."""

import gzip

import pytest

from model.training import extract


def test_html_keeps_text_and_leaves_menus_and_scripts():
    page = """<?xml version="1.0"?><html class="sidebar-visible"><head><title>T</title></head>
    <body><nav>menu <nav>inner</nav> menu</nav><div class="sphinxsidebar"><div>side</div></div>
    <h1>Title</h1><p>One <b>bold</b>
    line &amp; more.</p><ul><li>first<li>second</ul><script>code()</script>end</body></html>"""

    text = extract.html_to_text(page)

    assert [x.strip() for x in text.split("\n") if x.strip()] == [
        "Title",
        "One bold line & more.",
        "first",
        "second",
        "end",
    ]


def test_html_keeps_the_lines_of_preformatted_text():
    text = extract.html_to_text("<body><p>a\nb</p><pre>  x\n    y</pre></body>")

    assert "a b" in text
    assert "  x\n    y" in text


def test_html_file_is_read_in_its_charset(tmp_path):
    page = tmp_path / "page.html"
    page.write_bytes('<meta charset="iso-8859-1"><body>Grüße</body>'.encode("iso-8859-1"))

    [(_, text)] = extract.read_html(page)

    assert text.strip() == "Grüße"


def test_rst_loses_roles_directives_and_heading_lines():
    markup = (
        "Heading\n=======\n\n.. index:: x\n\nCall :func:`open <io.open>` or ``read`` of "
        "*file*, **now**; see `the page <https://example.org>`_::\n"
    )

    text = extract.rst_to_text(markup)

    assert text.split("\n") == [
        "Heading",
        "",
        "",
        "Call open or read of file, now; see the page:",
        "",
    ]


def test_dictionary_loses_the_braces_of_references(tmp_path):
    path = tmp_path / "x.dict.dz"
    path.write_bytes(gzip.compress(b"word\n   See {other}.\n"))

    assert list(extract.read_dictd(path)) == [("#0", "word\n   See other.\n")]


def test_wordnet_lines_become_words_and_gloss(tmp_path):
    path = tmp_path / "data.noun"
    path.write_text(
        "  1 licence text\n"
        "00001740 03 n 02 entity 0 whole_thing 0 001 ~ 00001930 n 0000 | that which exists  \n"
    )

    assert list(extract.read_wordnet(path)) == [("#0", "entity, whole thing: that which exists\n")]


@pytest.mark.parametrize(
    ("has_verse_lines", "expected"),
    [
        (True, "In the beginning\nwas light & day\n"),
        (False, "\nIn the beginning\n\nwas light & day\n"),
    ],
    ids=["bible", "commentary"],
)
def test_sword_dump_loses_keys_notes_and_tags(has_verse_lines, expected):
    dump = (
        "$$$Genesis 1:1\nIn the <w>beginning</w><note>n\nn</note>\n"
        "$$$Genesis 1:2\nwas  light &amp; day\n"
    )

    assert extract.sword_to_text(dump, has_verse_lines) == expected


@pytest.mark.parametrize("num_chars", [0, 1, 9, 10, 11, 57])
def test_pieces_add_up_to_the_text(num_chars):
    text = ("abcd\nefg\n\nh" * 8)[:num_chars]

    pieces = list(extract.split_pieces(text, min_chars=10))

    assert "".join(pieces) == text
    assert all(len(piece) >= 10 for piece in pieces[:-1])
    assert all(piece.endswith("\n") for piece in pieces[:-1])
