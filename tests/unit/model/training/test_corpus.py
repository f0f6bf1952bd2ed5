"""The corpus is split by page, not by translation, and stays within its shares."""

import random

import pytest

from model.training import corpus, extract
from model.training.clean import Document
from model.training.sources import SOURCES, Source


def test_translations_of_a_page_share_their_side_of_the_split():
    for number in range(300):
        english = Document("libreoffice-help-en-us", "en", f"page{number}.html", "")
        german = Document("libreoffice-help-de", "de", f"page{number}.html", "")
        assert corpus.is_held_out(english) == corpus.is_held_out(german)


def test_share_of_held_out_pages_is_the_stated_one():
    pages = [Document("rust-doc", "en", f"book/{number}", "") for number in range(4000)]

    share = sum(corpus.is_held_out(page) for page in pages) / len(pages)

    assert share == pytest.approx(corpus.HELD_OUT_SHARE, abs=0.01)


def test_unseen_source_is_held_out_whole():
    pages = [Document("dict-devil", "en", f"devil#{number}", "text") for number in range(50)]

    train, held = corpus.split(pages)

    assert train == []
    assert held == {"en-unseen": pages}


def test_no_page_is_on_both_sides():
    pages = [Document("rust-doc", "en", f"book/{number}", "text") for number in range(500)]

    train, held = corpus.split(pages)

    assert {x.page for x in train} | {x.page for x in held["en"]} == {x.page for x in pages}
    assert {x.page for x in train}.isdisjoint(x.page for x in held["en"])


def test_source_stops_at_its_share():
    limit = next(x for x in SOURCES if x.package == "sword-dict-naves").max_train_bytes
    pages = [Document("sword-dict-naves", "en", str(n), "x" * 100_000) for n in range(9)]

    kept = corpus.cap_sources(pages, random.Random(0))

    assert limit <= sum(len(x.text) for x in kept) < limit + 100_000


def test_pages_of_a_package_are_named_without_their_language(tmp_path):
    for folder in ("C", "de", "pt_BR"):
        (tmp_path / "help" / folder).mkdir(parents=True)
        (tmp_path / "help" / folder / "net.page").write_text(f"<page><p>{folder}</p></page>")
    (tmp_path / "help" / "de" / "picture.png").write_bytes(b"\x89PNG")
    source = Source("docs", "x", r"help/(?P<language>[^/]+)/(?P<page>.*\.page)", extract.read_html)

    documents = list(corpus.read_documents(source, tmp_path))

    assert [(x.language, x.page, x.text.strip()) for x in documents] == [
        ("en", "net.page", "C"),
        ("de", "net.page", "de"),
    ]


def test_no_source_is_listed_twice_or_under_a_licence_that_binds_weights_to_gpl():
    packages = [source.package for source in SOURCES]

    assert len(set(packages)) == len(packages)
    assert {source.licence.split()[0] for source in SOURCES} <= {
        "public",
        "WordNet",
        "PSF-2.0",
        "BSD-3-Clause",
        "PostgreSQL",
        "MIT",
        "MPL-2.0",
        "CC-BY-SA-3.0",
    }
