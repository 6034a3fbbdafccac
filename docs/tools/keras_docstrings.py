"""Griffe extension: docstrings in Keras' style as Markdown, with links to public names.

Griffe's own reader of Google's style knows neither "Call arguments", "Masking" and "Symmetry",
nor arguments that share one description.
"""

import pathlib
import re

import griffe

ENTRIES = ("Args", "Call arguments", "Attributes", "Raises", "Arguments of all checks")
TITLES = {"Args": "Arguments"}
SECTION = re.compile(r"[A-Z][\w ,]*:$")
ENTRY = re.compile(r"([*\w][\w*, ]*?):(?: (.*)|$)")
# Not the words of "a, b and the matching regularizers and constraints".
NAME_OF_ARGUMENT = r"\*{0,2}\b(?!and\b|the\b|matching\b|\w+s and|constraints)[a-z]\w*(?=,|$| and)"
NAME = re.compile(r"(?<![`\[])`((?:keras_sets\.)?[\w.]+)`(?!`|\])")


class KerasDocstrings(griffe.Extension):
    """Rewrites every docstring of the package once it is loaded."""

    def on_package(self, *, pkg, **kwargs):
        links = dict(public_names(pathlib.Path(__file__).parent.parent / "api"))
        self.rewrite(pkg, links, set())

    def rewrite(self, node, links, seen):
        if node.is_alias or node.path in seen:
            return
        seen.add(node.path)
        if node.docstring:
            own = {path for path in links.values() if path.endswith(f".{node.name}")}
            other = {name: path for name, path in links.items() if path not in own}
            node.docstring.value = markdown(node.docstring.value, other)
        for member in list(node.members.values()):
            self.rewrite(member, links, seen)


def public_names(pages):
    """`(name, path)` of all that the pages of the reference show, by full and by short name."""
    for page in sorted(pages.glob("*.md")):
        for path in re.findall(r"^::: (\w+\.\w+\.[\w.]+)$", page.read_text(), flags=re.M):
            module, name = path.rsplit(".", 1)
            # A function in a file of its name hides that file: `models.swarm`.
            yield f"{module.removesuffix(f'.{name}')}.{name}", path
            # Functions of `models` share names with much else.
            if name[0].isupper() and not name.isupper():
                yield name, path


def markdown(text, links):
    """One docstring as Markdown."""
    parts = []
    lines = text.expandtabs().splitlines()
    while lines:
        line = lines.pop(0)
        if line.startswith("```"):
            parts += [*ensure_blank(parts), line]
            while lines:
                parts.append(lines.pop(0))
                if parts[-1].startswith("```"):
                    break
        elif line.startswith(">>> "):
            parts += ["```python", *doctest_code([line, *block(lines, "")]), "```", ""]
        elif SECTION.match(line) and (indented(lines) or line == "Example:"):
            title = line[:-1]
            parts += ["", f"**{TITLES.get(title, title)}**", ""]
            if indented(lines):
                body = [entry.removeprefix("    ") for entry in block(lines, "    ")]
                parts += entries(body, links) if title in ENTRIES else prose(body, links)
        else:
            parts += [*before_list(parts, line), linked(line, links)]
    return "\n".join(parts)


def indented(lines):
    return bool(lines) and lines[0].startswith("    ")


def block(lines, indent):
    """The lines that follow, as far as they are indented; without an indent, to a blank one."""
    taken = []
    while lines and (lines[0].startswith(indent) if lines[0].strip() else indent):
        taken.append(lines.pop(0))
    return taken


def doctest_code(lines):
    """What a reader copies: code without prompts, outputs as comments."""
    for line in lines:
        if line.startswith((">>>", "...")):
            yield line[4:]
        elif not line.startswith("Traceback") and line.strip() != "...":
            yield f"# {line}"


def entries(lines, links):
    """`name, name: text` as list items; other lines as they are."""
    made = [""]
    for line in lines:
        own = not line.startswith(" ")
        names_go_on = made[-1].endswith(",") and ": " not in made[-1]
        if own and not names_go_on and (ENTRY.match(line) or line.endswith(",")):
            made.append(f"- {line}")
        elif line.strip():
            made[-1] += f" {line.strip()}"
    return [*(bold_names(item, links) for item in made), ""]


def bold_names(item, links):
    match = ENTRY.match(item.removeprefix("- "))
    if not match:
        return linked(item, links)
    names = re.sub(NAME_OF_ARGUMENT, r"`\g<0>`", match[1])
    return f"- {names if '`' in names else f'`{match[1]}`'}: {linked(match[2], links)}"


def prose(lines, links):
    made = []
    for line in lines:
        made += [*before_list(made, line), linked(line, links)]
    return [*made, ""]


def ensure_blank(parts):
    return [""] if parts and parts[-1] else []


def before_list(parts, line):
    """Markdown wants an empty line before a list."""
    in_list = parts and (parts[-1].startswith(("- ", "  ")) or not parts[-1].strip())
    return [""] if line.startswith("- ") and not in_list else []


def linked(line, links):
    def link(match):
        path = links.get(match[1])
        return f"[`{match[1]}`][{path}]" if path else match[0]

    return NAME.sub(link, line)
