"""Page of a run: one HTML file with its tables and figures, to be sent to somebody."""

from __future__ import annotations

import base64
import html
import json
import re
import shlex
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote

import yaml
from markdown_it import MarkdownIt
from markdown_it.token import Token

from domainnorm.errors import CheckpointError
from domainnorm.evaluation import readable, sentence
from domainnorm.storage import DAMAGED

_STYLE = """
:root { color-scheme: light dark; --text: #1a1a1a; --page: #fff; --line: #ccc; --pale: #555;
        --box: #f4f4f4 }
@media (prefers-color-scheme: dark) {
  :root { --text: #e4e4e4; --page: #161616; --line: #444; --pale: #aaa; --box: #242424 }
}
body { font: 16px/1.5 system-ui, sans-serif; max-width: 72rem; margin: 2rem auto; padding: 0 1rem;
       color: var(--text); background: var(--page); overflow-wrap: anywhere }
h1 { font-size: 1.6rem; line-height: 1.25 }
table { border-collapse: collapse; margin: 1rem 0; font-variant-numeric: tabular-nums }
th, td { padding: .3rem .7rem; border-bottom: 1px solid var(--line); overflow-wrap: normal }
td[style] { white-space: nowrap }
.wide { overflow-x: auto }
figure { display: block; margin: 2rem 0; overflow-x: auto }
figcaption { color: var(--pale); font-size: .9rem }
img { max-width: 100%; height: auto; background: #fff }
pre { background: var(--box); padding: .8rem; overflow-x: auto; font-size: .85rem }
details { margin: 1rem 0 }
summary { cursor: pointer }
@media (max-width: 40rem) {
  body { margin: 1rem auto } th, td { padding: .3rem .4rem }
  img { max-width: max(100%, 36rem) }
}
"""
# In the order of the page, after the chart of each metric.
_FIGURES = {
    "confusion": "Of the test images, or pixels, of each true class (rows) the share that is "
    "called each class (columns).",
    "doubtful": "The ten test images of each target that the model is least sure of, with what is "
    "predicted, how surely, and in brackets what is true.",
    "translations": "Test images as they are, and in the style of each domain.",
    "generated": "Of each class a test image of each domain, and images made of noise.",
    "restored": "Test images as they came in, as they were restored, and as they really are.",
    "overlays": "Test images, their true masks, and those that were predicted.",
    "domains": "Training images of each domain, as they are before augmentation.",
    "curves": "Loss in training, and the metric on validation images, by epoch.",
    "layers": "How much the norms of two domains differ in each layer, from the first to the last: "
    "by their moments, which are the means and variances that features are normalized by, and by "
    "scale and shift, which are learned.",
    "embeddings": "Test images by what the encoder sees of them, in two dimensions; images that it "
    "takes for alike lie close.",
    "nearest": "Test images, and the domains that the encoder takes them for.",
}
_MATRIX = {
    "matrix_models": "Test images of each domain (columns) under the model of each (rows).",
    "matrix_norms": "Test images of each domain (columns) under the norms of each (rows).",
}
_MOST_ROWS = 16  # of a table that is open
_STAGE = re.compile(r"^[a-z]+_(?P<transfer>.+)_seed(?P<seed>\d+)_(?P<method>.+)$")
# Nothing is loaded or run: names in a recipe of a stranger are text.
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def run_page(folder: Path, name: str) -> str:
    """The page of a run: results, figures within the file, recipe, environment.

    Args:
        folder: Has ``results.md``, ``recipe.yaml`` and ``environment.json``.
        name: Of the recipe.

    Raises:
        OSError: One of the files is missing.
        CheckpointError: One is damaged.
    """
    file = folder / "environment.json"
    with _naming(file):
        made = json.loads(file.read_text(encoding="utf-8"))
        environment, told = json.dumps(made, indent=2, ensure_ascii=False), _told(made)
    recipe, results = (_text(folder / name) for name in ("recipe.yaml", "results.md"))
    with _naming(folder / "recipe.yaml"):
        question = html.escape(_question(yaml.safe_load(recipe), name))
    title = html.escape(name)
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{_POLICY}">
<meta name="viewport" content="width=device-width">
<title>{title}</title>
<style>{_STYLE}</style>
</head>
<body>
<h1>{question}</h1>
<p>{title}</p>
{told}
{_body(results, folder)}
<details><summary>recipe.yaml</summary><pre>{html.escape(recipe)}</pre></details>
<details><summary>environment.json</summary><pre>{html.escape(environment)}</pre></details>
</body>
</html>
"""


def caption(file: str) -> str:
    """What a figure shows, by its path below ``figures``, in sentences."""
    path = PurePosixPath(file)
    kind = _kind(path)
    metric = sentence(readable(path.stem))
    if path.parent.name.startswith("matrix_"):
        return f"{metric}. {_MATRIX[path.parent.name]}"
    if not kind:
        return f"{metric} of each method on the test images of the targets."
    stage = _STAGE.search(path.stem)
    if stage is None:
        return _FIGURES[kind]
    transfer = stage["transfer"].replace("-to-", " → ").replace("+", " + ")
    return f"{_FIGURES[kind]} This is {stage['method']}, {transfer}, seed {stage['seed']}."


def figure_place(file: str) -> tuple[int, str]:
    """What figures are sorted by, by their paths below ``figures``."""
    kind = _kind(PurePosixPath(file))
    return (1 + list(_FIGURES).index(kind) if kind else 0), file


def _kind(path: PurePosixPath) -> str:
    """A key of `_FIGURES`; nothing of the chart of a metric."""
    kind = path.stem.partition("_")[0]
    return kind if kind in _FIGURES else ""


@contextmanager
def _naming(file: Path) -> Iterator[None]:
    """Say which file it is that is damaged."""
    try:
        yield
    except OSError:
        raise
    except DAMAGED as error:
        raise CheckpointError(f"{file}: cannot be read ({error}); put back what it was") from error


def _text(file: Path) -> str:
    with _naming(file):
        return file.read_text(encoding="utf-8")


def _question(recipe: Any, name: str) -> str:
    """What a run was about, from its resolved recipe; of a comparison, which has many, its name."""
    data = recipe.get("data") if isinstance(recipe, dict) else None
    if not isinstance(data, dict) or not {"source", "target", "transfers"} <= data.keys():
        return name
    pairs = [(one["source"], one["target"]) for one in data["transfers"]]
    pairs = pairs or [(data["source"], data["target"])]
    names = dict.fromkeys(name for pair in pairs for part in pair for name in part)
    task = recipe.get("task")
    if isinstance(task, dict) and task.get("name") == "translation":
        return f"What do images of {', '.join(names)} look like in the style of each other?"
    if isinstance(task, dict) and task.get("name") == "generation":
        return f"Can images of {', '.join(names)} be made of noise, class by class?"
    if len(pairs) == 1:
        source, target = (" and ".join(names) for names in pairs[0])
        if not target:
            return f"How good is one model for {source}?"
        return f"Does a model of {source} work on {target}, and does adaptation help?"
    return f"Do models work across {', '.join(names)}, and does adaptation help?"


def _told(made: dict[str, Any]) -> str:
    """What the environment says above the results."""
    return f"""<p>{html.escape(_facts(made))}</p>
{_noted(made.get("left_out", []))}
<pre>{html.escape("domainnorm " + shlex.join(made.get("command", [])))}</pre>"""


def _noted(notes: Sequence[str]) -> str:
    """What of the data was left out, an item each."""
    items = "".join(f"<li>{html.escape(note)}</li>" for note in notes)
    return f"<ul>{items}</ul>" if items else ""


def _facts(made: dict[str, Any]) -> str:
    devices = ", ".join(made.get("devices", []))
    cpu = f"{made.get('processor', 'CPU')}, {made.get('cores', '?')} cores"
    packages = made.get("packages", {})
    versions = [f"{name} {packages[name]}" for name in ("domainnorm", "torch") if name in packages]
    return " · ".join([made.get("date", "")[:10], devices or cpu, *versions])


def _body(markdown: str, folder: Path) -> str:
    """Sentences, charts of metrics, tables that fold where such a chart has their numbers."""
    parser = MarkdownIt("commonmark", {"html": False}).enable("table")
    blocks = list(_blocks(parser.parse(markdown)))
    for token in (token for block in blocks for token in block):
        for child in token.children or ():
            if child.type == "image":
                _embed(child, folder)

    def render(tokens: Sequence[Token]) -> str:
        return str(parser.renderer.render(tokens, parser.options, {}))

    charts = {stem for block in blocks if (stem := _stem(block)) and not _kind(PurePosixPath(stem))}
    first = next((place for place, block in enumerate(blocks) if _title(block)), len(blocks))
    drawn = [block for block in blocks[first:] if _stem(block) in charts]
    others = [block for block in blocks[first:] if _stem(block) not in charts]
    blocks = [*blocks[:first], *drawn, *others]
    shown = ""
    while blocks:
        block = blocks.pop(0)
        title = _title(block)
        if title and blocks and blocks[0][0].type == "table_open":
            table = blocks.pop(0)
            notes = blocks.pop(0) if blocks and _is_text(blocks[0]) else []
            rows = sum(token.type == "tr_open" for token in table)
            folded = rows > _MOST_ROWS or title.rpartition("· ")[2] in charts
            start = "<details>" if folded else "<details open>"
            inside = render([*table, *notes])
            shown += f"{start}<summary>{render(block[1:-1])}</summary>{inside}</details>"
        else:
            shown += render(_with_caption(block))
    return shown.replace("<table>", '<div class="wide"><table>').replace(
        "</table>", "</table></div>"
    )


def _blocks(tokens: Sequence[Token]) -> Iterator[list[Token]]:
    """The paragraphs, tables and lists of a page, the tokens of each."""
    block: list[Token] = []
    for token in tokens:
        block.append(token)
        if token.level == 0 and token.nesting != 1:
            yield block
            block = []


def _stem(block: Sequence[Token]) -> str:
    """The name of the figure that a paragraph consists of, without suffix; nothing of others."""
    parts = block[1].children if len(block) == 3 else None
    if not parts or [part.type for part in parts] != ["image"]:
        return ""
    return str(parts[0].meta["stem"])


def _title(block: Sequence[Token]) -> str:
    """The text of a paragraph that begins in bold; nothing of others."""
    parts = block[1].children if len(block) == 3 and block[0].type == "paragraph_open" else None
    bold = [part for part in parts or () if part.content or part.type == "strong_open"]
    return block[1].content if bold and bold[0].type == "strong_open" else ""


def _is_text(block: Sequence[Token]) -> bool:
    return block[0].type == "paragraph_open" and not _stem(block) and not _title(block)


def _embed(image: Token, folder: Path) -> None:
    """Put the content of a figure in the place of its file name, which is noted."""
    file = (folder / unquote(str(image.attrs["src"]))).resolve()
    image.meta["stem"] = file.stem
    if file.is_relative_to(folder.resolve()) and file.suffix == ".png" and file.is_file():
        content = base64.b64encode(file.read_bytes()).decode()
        image.attrs["src"] = f"data:image/png;base64,{content}"


def _with_caption(block: list[Token]) -> list[Token]:
    """A paragraph that is nothing but an image becomes a figure."""
    if not _stem(block):
        return block
    block[0].tag = block[2].tag = "figure"
    text = html.escape(block[1].children[0].content) if block[1].children else ""
    return [
        *block[:2],
        Token("html_block", "", 0, content=f"<figcaption>{text}</figcaption>"),
        block[2],
    ]
