"""MkDocs hooks: pages and notebooks of the tutorials, and numbers that stay on one line.

A tutorial is a plain script. Its docstring is title and introduction; a comment with an empty
line before and after it is text; the rest is code.
"""

import ast
import json
import pathlib
import re

from mkdocs.structure.files import File


def on_files(files, config):
    for script in sorted((pathlib.Path(config.docs_dir) / "tutorials").glob("*.py")):
        parts = cells(script.read_text())
        for name, content in (
            (f"{script.stem}.md", page(script.stem, parts)),
            (f"{script.stem}.ipynb", notebook(parts)),
        ):
            files.append(File.generated(config, f"tutorials/{name}", content=content))
    return files


def on_page_markdown(markdown, page, **kwargs):
    if page.file.src_uri == "tutorials/index.md":
        # In the repository the list leads to the scripts.
        markdown = markdown.replace(".py)", ".md)")
    markdown = re.sub(r"(?<=\d) ± (?=\d)", "\xa0±\xa0", markdown)
    return re.sub(r"(?<=\d) %", "\xa0%", markdown)


def cells(source):
    """`(kind, text)` of a script, `kind` being `"markdown"` or `"code"`."""
    intro = ast.parse(source).body[0]
    title, _, rest = intro.value.value.strip().partition("\n")
    made = [("markdown", f"# {title.rstrip('.')}\n\n{rest.strip()}")]
    for block in re.split(
        r"\n{2,}", "\n".join(source.splitlines()[intro.end_lineno :]).strip("\n")
    ):
        lines = block.splitlines()
        if all(line.startswith("#") for line in lines):
            made.append(("markdown", "\n".join(line[2:] for line in lines)))
        elif made[-1][0] == "code":
            between = "\n\n\n" if block.startswith(("def ", "class ", "@")) else "\n\n"
            made[-1] = ("code", made[-1][1] + between + block)
        else:
            made.append(("code", block))
    return made


def page(name, parts):
    download = (
        f"*Download as a [script]({name}.py) or a [notebook]({name}.ipynb). The tests run it.*"
    )
    text = [parts[0][1], download]
    text += [f"```python\n{part}\n```" if kind == "code" else part for kind, part in parts[1:]]
    return "\n\n".join(text) + "\n"


def notebook(parts):
    made = []
    for kind, text in parts:
        cell = {"cell_type": kind, "metadata": {}, "source": text.splitlines(keepends=True)}
        made.append(cell | ({"outputs": [], "execution_count": None} if kind == "code" else {}))
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    metadata = {"kernelspec": kernel}
    return json.dumps({"cells": made, "metadata": metadata, "nbformat": 4, "nbformat_minor": 4})
