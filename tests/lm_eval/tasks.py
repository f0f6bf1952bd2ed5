"""A few texts as tasks of lm-eval: YAML and data, to be found offline."""

import json
from pathlib import Path

TEXTS = [
    "The quick brown fox jumps over the lazy dog.",
    "Zwölf Boxkämpfer jagen Viktor quer über den großen Sylter Deich 😀.",
    "x",
    "日本語の文字列、二行目\nと三つ目。 ",
    "<eos>z is text, and so is <bos>.",
    "0123456789" * 30,
]
PAIRS = [
    ("The capital of France is", "Paris"),
    ("Trailing space ", "moves"),
    ("naïve", "té😀"),
    ("z", "<eos>z"),
    ("Q: 1 + 1 =\nA:", "2"),
    ("", "no context"),
]
CHOICES = [
    {"question": "One plus one is", "choices": ["two", "three", "a fish"], "answer": 0},
    {"question": "Ça va?", "choices": ["Oui, ça va.", "No", "😀"], "answer": 0},
    {"question": "Water is", "choices": ["wet", "dry"], "answer": 0},
]
_TASKS = {
    "pairs": (
        [{"context": context, "target": target} for context, target in PAIRS],
        ["output_type: loglikelihood", "doc_to_text: '{{context}}'", "doc_to_target: '{{target}}'"],
        "perplexity",
    ),
    "texts": (
        [{"text": text} for text in TEXTS],
        ["output_type: loglikelihood_rolling", "doc_to_text: ''", "doc_to_target: '{{text}}'"],
        "bits_per_byte",
    ),
    "choices": (
        CHOICES,
        [
            *("output_type: multiple_choice", "doc_to_text: '{{question}}'"),
            *("doc_to_choice: '{{choices}}'", "doc_to_target: answer"),
        ],
        "acc",
    ),
}
NAMES = tuple(_TASKS)


def write_tasks(folder: Path) -> None:
    """Write every task of `NAMES` into `folder`."""
    for name, (documents, lines, metric) in _TASKS.items():
        source = folder / f"{name}.jsonl"
        source.write_text("".join(json.dumps(document) + "\n" for document in documents))
        task = [
            *(f"task: {name}", "dataset_path: json", "test_split: test"),
            *("dataset_kwargs:", "  data_files:", f"    test: {source}"),
            *lines,
            *("metric_list:", f"  - metric: {metric}"),
        ]
        (folder / f"{name}.yaml").write_text("\n".join(task) + "\n")
