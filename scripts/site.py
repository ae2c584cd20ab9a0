"""Hooks of MkDocs: pages from files outside docs/, the notebook, and fields in docstrings as Markdown lists."""

import posixpath
import re
from pathlib import Path
from typing import Any

import griffe
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from nbconvert import MarkdownExporter

ROOT = Path(__file__).parents[1]
PAGES = {  # page of the site -> file of the repository
    "index.md": "README.md",
    "security.md": "SECURITY.md",
    "contributing.md": "CONTRIBUTING.md",
    "changelog.md": "CHANGELOG.md",
    "examples.md": "examples/README.md",
    "tutorials/notebook.md": "examples/cardiac_cine.ipynb",
    "benchmarks_history.md": "benchmarks/README.md",
}
_FIELD = re.compile(r"(\w+):\s+(?=\S)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages from files outside docs/, the pictures of the notebook, and the examples that pages link to."""
    for page, name in PAGES.items():
        content = (ROOT / name).read_text(encoding="utf-8")
        if name.endswith(".ipynb"):
            content, resources = MarkdownExporter().from_filename(str(ROOT / name))
            for picture, data in resources["outputs"].items():
                files.append(File.generated(config, f"examples/{picture}", content=data))
        files.append(File.generated(config, page, content=content))
    for path in sorted((ROOT / "examples").glob("*.*")):
        if path.suffix in (".py", ".sh", ".toml", ".ipynb"):
            files.append(File.generated(config, f"examples/{path.name}", content=path.read_text(encoding="utf-8")))
    return files


def on_page_markdown(markdown: str, page: Any, config: MkDocsConfig, files: Files) -> str:
    """Point links between files of the repository at the pages of the site."""
    if page.file.src_uri.startswith("reference/"):
        return markdown
    site_names = {name: target for target, name in PAGES.items()}
    folder = posixpath.dirname(page.file.src_uri)
    source_folder = posixpath.dirname(PAGES.get(page.file.src_uri, f"docs/{page.file.src_uri}"))

    def page_link(match: re.Match[str]) -> str:
        name = posixpath.normpath(posixpath.join(source_folder, match[1]))
        target = site_names.get(name, name.removeprefix("docs/"))
        return f"]({posixpath.relpath(target, folder)}{match[2] or ''})"

    return re.sub(r"\]\((?!\w+:)([^)#\s]+)(#[^)]*)?\)", page_link, markdown)


class Docstrings(griffe.Extension):
    """Shows lines such as `name:  text` of a docstring as a list, and examples as code."""

    def on_object(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        """Rewrite the docstring of an object."""
        if obj.docstring is not None:
            obj.docstring.value = as_markdown(obj.docstring.value)


def as_markdown(text: str) -> str:
    r"""Return a docstring whose paragraphs of fields are lists, and whose examples are code; sections (`Args:`) stay.

    >>> print(as_markdown("Settings.\n\nsize:   height and\n        width\nfit:    crop or pad"))
    Settings.
    <BLANKLINE>
    - `size`: height and width
    - `fit`: crop or pad
    """
    return "\n\n".join(_list(paragraph) or paragraph for paragraph in text.split("\n\n"))


def _list(paragraph: str) -> str | None:
    lines = paragraph.split("\n")
    if lines[0].startswith(">>>"):
        return f"```pycon\n{paragraph}\n```"
    if not _FIELD.match(lines[0]) or not all(line.startswith(" ") or _FIELD.match(line) for line in lines):
        return None
    items: list[str] = []
    for line in lines:
        if match := _FIELD.match(line):
            items.append(f"- `{match[1]}`: {line[match.end() :].strip()}")
        else:
            items[-1] += f" {line.strip()}"
    return "\n".join(items)
