"""The documents: all are in the index, their links lead somewhere, the glossary names files."""

import re
from pathlib import Path
from urllib.parse import unquote

import pytest

from contract.settings import REPOSITORY

DOCS = REPOSITORY / "docs"
INDEX = DOCS / "README.md"
FOLDERS = (".github", "bench", "client", "deploy", "docs", "model", "model_package", "tests")
DOCUMENTS = sorted(
    [*REPOSITORY.glob("*.md"), *(p for f in FOLDERS for p in (REPOSITORY / f).rglob("*.md"))]
)
LINK = re.compile(r"\]\(([^()\s]+)\)")
CODE = re.compile(r"^```.*?^```$|`[^`\n]+`", re.MULTILINE | re.DOTALL)

# Of a block that is pasted into a shell; the system's Python lacks the packages.
BARE_COMMAND = re.compile(
    r"^(?:[A-Z_]+=\S+ )*python3? -m (?:app|bench|deploy|model|worker)\b.*$", re.MULTILINE
)


def links(document: Path) -> list[str]:
    """The targets of a document's links that stay within the repository."""
    prose = CODE.sub("", document.read_text())
    return [target for target in LINK.findall(prose) if not re.match(r"[a-z]+:", target)]


def anchors(document: Path) -> set[str]:
    """The fragments under which GitHub shows the headings of a document."""
    titles = re.findall(r"^#+ (.*)$", document.read_text(), re.MULTILINE)
    plain = (re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", title) for title in titles)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in plain}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda p: str(p.relative_to(REPOSITORY)))
def test_links_lead_somewhere(document):
    for target in links(document):
        path, _, fragment = unquote(target).partition("#")
        found = (document.parent / path).resolve() if path else document
        assert found.exists(), target
        assert found.is_relative_to(REPOSITORY), target
        assert not fragment or fragment in anchors(found), target


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda p: str(p.relative_to(REPOSITORY)))
def test_commands_of_the_repository_run_in_its_environment(document):
    assert not BARE_COMMAND.findall(document.read_text())


def test_every_document_is_in_the_index():
    listed = {(INDEX.parent / target.partition("#")[0]).resolve() for target in links(INDEX)}
    documents = {*DOCS.glob("*.md"), *(DOCS / "decisions").glob("*.md")} - {INDEX}
    assert len(documents) > 20
    assert documents <= listed
    assert {REPOSITORY / "CONTRIBUTING.md", REPOSITORY / "SECURITY.md"} <= listed


def test_readme_leads_to_the_index():
    assert "docs/README.md" in links(REPOSITORY / "README.md")


@pytest.mark.parametrize("page", sorted((DOCS / "decisions").glob("*.md")), ids=lambda p: p.stem)
def test_decision_says_why_and_what_would_change_it(page):
    headings = re.findall(r"^\*\*([^*]+)\.\*\*", page.read_text(), re.MULTILINE)
    assert headings[0] == "Context"
    assert {"Decision", "Consequences", "What would change our mind"} <= set(headings)


GLOSSARY = (DOCS / "architecture.md").read_text().partition("\n## Glossary\n")[2]
ENTRIES = re.findall(r"^\| ([^|]+) \| ([^|]+) \| `([^`]+)` \|$", GLOSSARY, re.MULTILINE)
TERMS = {
    *("admission control", "attention window", "batch", "canary", "checkpoint", "chunked prefill"),
    *("connection slot", "dead letter", "KV cache", "lease", "micro-batch", "part", "pass"),
    *("prefill", "prefix sharing", "rate limit", "request", "scheduler", "slice"),
    *("sliding window", "surprisal", "warm-up"),
}


def test_glossary_has_each_term_once():
    terms = [term for term, _, _ in ENTRIES]
    assert len(terms) == len(set(terms))
    assert set(terms) >= TERMS


@pytest.mark.parametrize(("term", "path"), [(term, path) for term, _, path in ENTRIES])
def test_place_of_a_term_exists(term, path):
    assert (REPOSITORY / path).exists()


def test_paths_in_the_architecture_exist():
    text = (DOCS / "architecture.md").read_text()
    paths = re.findall(r"`((?:app|contract|deploy|model|worker)/[\w./-]+)`", text)
    assert len(paths) > 20
    assert [path for path in paths if not (REPOSITORY / path).exists()] == []
