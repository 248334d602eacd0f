"""What the site has beside the pages of this folder: pages that are made of the code, and others.

Read by mkdocs (``mkdocs.yml``).
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from latex2mathml.converter import convert
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

from domainnorm.cli.reference import made_pages

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "domainnorm"
# Pages of the top folder, and how others link to them.
MOVED = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
}
FORMULAS = "evaluation.md"
HIDDEN = ("cli", "loggers")  # packages without names for programs


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Write out ``folder/*`` in the navigation."""
    config.nav = _expanded(config.nav, _all_pages())
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that no file of this folder holds."""
    for name, text in _made().items():
        files.append(File.generated(config, name, content=text))
    return files


def _made() -> dict[str, str]:
    """Pages by name."""
    return {
        **{f"{name}.md": make() for name, (_, make) in made_pages().items()},
        **{f"python/{name}.md": text for name, text in _python_pages()},
        **{new: _moved(ROOT / old) for old, new in MOVED.items()},
        **{
            f"tutorials/{file.stem}.md": _notebook(file)
            for file in sorted((ROOT / "docs/tutorials").glob("*.ipynb"))
        },
    }


def _all_pages() -> list[str]:
    written = (file.relative_to(ROOT / "docs") for file in sorted((ROOT / "docs").rglob("*.md")))
    return [*(file.as_posix() for file in written), *_made()]


def _expanded(items: list[Any], pages: list[str]) -> list[Any]:
    stated = set(re.findall(r"[\w/]+\.md", json.dumps(items)))
    found: list[Any] = []
    for item in items:
        if isinstance(item, dict):
            found += [
                {title: _expanded(inner, pages) if isinstance(inner, list) else inner}
                for title, inner in item.items()
            ]
        elif item.endswith("/*"):
            folder = item.removesuffix("*")
            found += [page for page in pages if page.startswith(folder) and page not in stated]
        else:
            found.append(item)
    return found


def _python_pages() -> Iterator[tuple[str, str]]:
    """A page for each package, with the names of its stub."""
    described: dict[str, str] = {}  # dotted name of what is described -> page
    for package in ("domainnorm", *_packages()):
        source = (ROOT / package.replace(".", "/") / "__init__.py").read_text(encoding="utf-8")
        homes = [_home(place, name) for place, name in _names(package)]
        page = package.rpartition(".")[2]
        elsewhere = (
            f"- [`{home.rpartition('.')[2]}`]({described[home]}.md#{home})"
            for home in homes
            if home in described
        )
        sections = (f"::: {home}" for home in homes if home not in described)
        head = (f"# {package}", ast.get_docstring(ast.parse(source)) or "", "\n".join(elsewhere))
        yield page, "\n\n".join((*head, *sections)) + "\n"
        described = {**dict.fromkeys(homes, page), **described}


def _packages() -> list[str]:
    stubs = sorted(PACKAGE.glob("*/__init__.pyi"))
    return [f"domainnorm.{stub.parent.name}" for stub in stubs if stub.parent.name not in HIDDEN]


def _names(package: str) -> Iterator[tuple[str, str]]:
    """What a package has by its stub: the module that each name is taken from, and the name."""
    stub = ROOT / package.replace(".", "/") / "__init__.pyi"
    if stub.is_file():
        for node in ast.parse(stub.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ImportFrom) and node.module:
                yield from ((f"{package}.{node.module}", one.name) for one in node.names)


def _home(place: str, name: str) -> str:
    """The dotted name under which a name is written; packages pass on those of others."""
    for inner, other in _names(place):
        if other == name:
            return _home(inner, name)
    return f"{place}.{name}"


def _moved(file: Path) -> str:
    text = file.read_text(encoding="utf-8").replace("](docs/", "](")
    for old, new in MOVED.items():
        text = text.replace(f"]({old}", f"]({new}")
    return text


def _notebook(file: Path) -> str:
    cells = json.loads(file.read_text(encoding="utf-8"))["cells"]
    texts = ("".join(cell["source"]) for cell in cells)
    return "\n\n".join(
        f"```python\n{text}\n```" if cell["cell_type"] == "code" else text
        for cell, text in zip(cells, texts, strict=True)
    )


def on_page_markdown(markdown: str, page: Page, **_: Any) -> str:
    """Notebooks are pages here, and formulas MathML, which needs no script."""
    if page.file.src_uri == FORMULAS:
        markdown = re.sub(r"\$([^$]+)\$", lambda found: convert(found[1]), markdown)
    return re.sub(r"(\]\([\w/.]*)\.ipynb", r"\1.md", markdown)
