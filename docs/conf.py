"""How the documentation is built: ``make docs`` (Sphinx, MyST for Markdown, furo), without network; any warning is an error."""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Iterator
from importlib.metadata import version as installed_version
from typing import TYPE_CHECKING

import typer
from docutils.nodes import SkipNode, math_block
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx.util.nodes import make_refnode
from typer.core import TyperGroup

from sparsespike.cli.main import app as cli

if TYPE_CHECKING:
    from click import Command
    from docutils.nodes import Element
    from sphinx.addnodes import pending_xref
    from sphinx.application import Sphinx
    from sphinx.environment import BuildEnvironment
    from sphinx.writers.html5 import HTML5Translator

project = "sparsespike"
author = "the sparsespike authors"
version = release = installed_version("sparsespike")

extensions = ["myst_parser", "sphinx.ext.autodoc", "numpydoc"]
exclude_patterns = ["_build"]
smartquotes = False  # --option stays --option
html_theme = "furo"
html_title = f"sparsespike {version}"
html_static_path = ["_static"]
html_css_files = ["tables.css"]
html_show_copyright = False
html_math_renderer = "mathml"

myst_enable_extensions = ["colon_fence", "dollarmath"]
myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_default_options = {"members": True}
# Numbers, whose limits are for files that are read.
autodoc_type_aliases = {name: name for name in ("Count", "Size", "Flops")}
default_role = "code"
numpydoc_show_class_members = False

# matplotlib is imported where a figure is drawn, so that its name is known to type checkers alone.
nitpick_ignore = [("py:class", "Figure")]
# Every reference must lead to a description or, as `resolve` below says, at least name something that exists.
nitpicky = True


def candidates(module: str | None, enclosing: str | None, target: str) -> Iterator[str]:
    """The full names that a reference may stand for, as Python's own rules would read it within a docstring."""
    yield target
    if module:
        yield f"{module}.{target}"
        if enclosing:
            yield f"{module}.{enclosing}.{target}"


def find(name: str) -> object | None:
    """Import what a full name stands for, or None."""
    parts = name.split(".")
    for end in range(len(parts), 0, -1):
        try:
            found: object = importlib.import_module(".".join(parts[:end]))
        except ImportError:
            continue
        for attribute in parts[end:]:
            found = getattr(found, attribute, None)
        return found
    return None


def resolve(app: Sphinx, environment: BuildEnvironment, node: pending_xref, shown: Element) -> Element | None:
    """A reference without a target: the description under the object's own module, or plain text for what is described elsewhere.

    Packages name again what their modules define, and types of numpy or torch are described in their own documentation. What no
    import finds is a mistake, and Sphinx warns.
    """
    if node.get("refdomain") != "py":
        return None
    for name in candidates(node.get("py:module"), node.get("py:class"), node["reftarget"]):
        found = find(name)
        if found is None:
            continue
        own = f"{getattr(found, '__module__', None)}.{getattr(found, '__qualname__', None)}"
        matches = environment.domains["py"].objects
        if own in matches:
            entry = matches[own]
            return make_refnode(app.builder, node["refdoc"], entry.docname, entry.node_id, shown, own)
        return shown
    return None


EXAMPLE = re.compile(r"^(?:Example: )?(sparsespike [a-z].*)$", re.MULTILINE)


def describe(name: str, command: Command) -> Iterator[str]:
    """A command's help as Markdown: what it does, its arguments and options."""
    if isinstance(command, TyperGroup):
        for inner, each in command.commands.items():
            yield from describe(f"{name} {inner}", each)
        return
    text = inspect.cleandoc(command.help or "")
    yield f"## {name}\n"
    yield EXAMPLE.sub("", text).replace("Examples:", "").rstrip() + "\n"
    yield "\n".join(["```bash", *EXAMPLE.findall(text), "```\n"])
    yield "| | |\n|---|---|"
    for parameter in command.params:
        option = parameter.param_type_name == "option"
        names = ", ".join(f"`{each}`" for each in parameter.opts) if option else f"`{parameter.name}`"
        meaning = getattr(parameter, "help", None) or ""
        default = parameter.default
        if option and parameter.required:
            meaning += " Required."
        elif default not in (None, False, [], ()) and not callable(default):
            meaning += f" Default: {', '.join(map(str, default)) if isinstance(default, list | tuple) else default}."
        yield f"| {names} | {meaning} |"
    yield ""


def insert_commands(app: Sphinx, page: str, source: list[str]) -> None:
    """The help texts of the program in the place of a comment on the page ``commands``."""
    if page == "commands":
        program = typer.main.get_command(cli)
        assert isinstance(program, TyperGroup)
        text = "\n".join(line for name, command in program.commands.items() for line in describe(name, command))
        source[0] = source[0].replace("<!-- commands -->", text)


def show_math(writer: HTML5Translator, node: Element) -> None:
    """Formulas as MathML, which browsers draw by themselves: no scripts, and nothing to load from elsewhere."""
    writer.body.append(tex2mathml(node.astext(), as_block=isinstance(node, math_block)))
    raise SkipNode


def setup(app: Sphinx) -> None:
    """Called by Sphinx."""
    app.add_html_math_renderer("mathml", (show_math, None), (show_math, None))
    app.connect("source-read", insert_commands)
    app.connect("env-get-outdated", lambda *_: ["commands"])
    app.connect("missing-reference", resolve)
