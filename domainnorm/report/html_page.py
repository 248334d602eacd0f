"""Page of a run: one HTML file with its tables and figures, to be sent to somebody."""

from __future__ import annotations

import base64
import html
import json
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
.wide { overflow-x: auto }
figure { display: block; margin: 2rem 0 }
figcaption { color: var(--pale); font-size: .9rem }
img { max-width: 100%; height: auto; background: #fff }
pre { background: var(--box); padding: .8rem; overflow-x: auto; font-size: .85rem }
@media (max-width: 40rem) { body { margin: 1rem auto } th, td { padding: .3rem .4rem } }
"""
_FIGURES = {
    "curves": "What training has logged, by epoch.",
    "confusion": "For each true class (rows) the share of its test images by predicted class.",
    "doubtful": "The ten test images of each target that the model is least sure of.",
    "translations": "Test images as they are, and in the style of every domain.",
    "restored": "Test images as they came, restored images, and as they were.",
    "overlays": "Test images, their masks, and what was predicted.",
    "domains": "Test images of each domain, as the network sees them.",
    "layers": "How much the norms of two domains differ in each layer, from first to last.",
    "embeddings": "Test images by what the encoder sees of them, in two dimensions.",
    "nearest": "Test images, and the domains that the encoder takes them for.",
}
_MATRIX = {
    "matrix_models": "Test images of each domain (columns) under the model of each (rows).",
    "matrix_norms": "Test images of each domain (columns) under the norms of each (rows).",
}
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
    """What a figure shows, by its path below ``figures``: a sentence, and which stage it is of."""
    path = PurePosixPath(file)
    kind, _, stage = path.stem.partition("_")
    metric = path.stem.replace("_", " ").capitalize()
    if path.parent.name.startswith("matrix_"):
        return f"{metric}. {_MATRIX[path.parent.name]}"
    if kind not in _FIGURES:
        return f"{metric} of each method on the test images."
    of = f" {stage.replace('-to-', ' → ').replace('_', ' ')}" if stage else ""
    return f"{_FIGURES[kind]}{of}"


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
    parser = MarkdownIt("commonmark", {"html": False}).enable("table")
    tokens = parser.parse(markdown)
    for token in tokens:
        for child in token.children or ():
            if child.type == "image":
                _embed(child, folder)
    shown: str = parser.renderer.render(_with_captions(tokens), parser.options, {})
    return shown.replace("<table>", '<div class="wide"><table>').replace(
        "</table>", "</table></div>"
    )


def _embed(image: Token, folder: Path) -> None:
    """Put the content of a figure in the place of its file name."""
    file = (folder / unquote(str(image.attrs["src"]))).resolve()
    if file.is_relative_to(folder.resolve()) and file.suffix == ".png" and file.is_file():
        content = base64.b64encode(file.read_bytes()).decode()
        image.attrs["src"] = f"data:image/png;base64,{content}"


def _with_captions(tokens: list[Token]) -> list[Token]:
    """Paragraphs that hold nothing but an image become figures."""
    shown: list[Token] = []
    for index, token in enumerate(tokens):
        around = tokens[index - 1 : index + 2]
        alone = [child.type for child in token.children or ()] == ["image"]
        if alone and [part.type for part in around[::2]] == ["paragraph_open", "paragraph_close"]:
            around[0].tag = around[2].tag = "figure"
            text = html.escape(token.children[0].content) if token.children else ""
            caption = f"<figcaption>{text}</figcaption>"
            shown += [token, Token("html_block", "", 0, content=caption)]
        else:
            shown.append(token)
    return shown
