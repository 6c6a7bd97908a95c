"""What MkDocs makes when it builds the site: a page for every command, from the command line itself, so that it cannot
drift; changelog and contributing, from the root of the repository. tests/test_docs.py reads the same pages."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args, get_origin, get_type_hints

from typer.main import get_command

from pansharpen_cli.cli.app import EXIT_CODES, app

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files
    from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
OWN = {"changelog.md": "CHANGELOG.md", "contributing.md": "CONTRIBUTING.md", "security.md": "SECURITY.md"}
"""Pages of the site that are files of the root."""
BATCH_ONLY = 5
COMMANDS: dict[str, Any] = get_command(app).commands  # type: ignore[attr-defined]
"""By name, in the order of `pansharpen --help`."""


def command_page(name: str) -> str:
    """The Markdown of a command's page."""
    command = COMMANDS[name]
    hints = get_type_hints(inspect.unwrap(command.callback), include_extras=True)
    first, *others = inspect.cleandoc(command.help).split("\n\n")
    examples = [f"    {text}" for text in others if text.startswith("pansharpen ")]
    prose = [" ".join(text.split()) for text in others if not text.startswith("pansharpen ")]
    parts = [f"# pansharpen {name}", first, _usage(name, command), *prose, "## Examples", "\n".join(examples)]
    arguments = [param for param in command.params if param.param_type_name == "argument"]
    options = [param for param in command.params if param.param_type_name == "option"]
    if arguments:
        rows = [f"| {_code(_argument(param))} | {_help(param)} |" for param in arguments]
        parts += ["## Arguments", "\n".join(["| | |", "|---|---|", *rows])]
    rows = [_option_row(param, hints) for param in options]
    parts += ["## Options", "\n".join(["| option | value | default | |", "|---|---|---|---|", *rows])]
    return "\n\n".join([*parts, "## Exit codes", "\n".join(_exit_codes(name))]) + "\n"


def _usage(name: str, command: Any) -> str:
    """A line of code with what must be given."""
    words = [_argument(param) for param in command.params if param.param_type_name == "argument"]
    needed = [param for param in command.params if param.param_type_name == "option" and param.required]
    words += [f"{_longest(param.opts)} {param.name.upper()}" for param in needed]
    return f"    pansharpen {' '.join([name, *words])} [OPTIONS]"


def _argument(param: Any) -> str:
    shown = param.metavar or param.name.upper() + ("..." if param.nargs != 1 else "")
    return shown if param.required or shown.startswith("[") else f"[{shown}]"


def _option_row(param: Any, hints: dict[str, Any]) -> str:
    names = ", ".join(_code(text) for text in [*param.opts, *param.secondary_opts])
    return f"| {names} | {_value(param, hints)} | {_default(param)} | {_help(param)} |"


def _value(param: Any, hints: dict[str, Any]) -> str:
    """What follows the option."""
    if param.is_flag or param.count:
        return ""
    if param.metavar:
        return _code(param.metavar)
    kind = hints[param.name]
    while get_origin(kind) is not None:  # of Annotated[...], X | None and list[X] the first
        kind = get_args(kind)[0]
    if issubclass(kind, Enum):
        return ", ".join(_code(str(choice.value)) for choice in kind)
    return {int: "whole number", float: "number", Path: "path", str: "text"}[kind]


def _default(param: Any) -> str:
    if param.required:
        return "must be given"
    if param.is_flag or param.count or param.default in (None, "", ()):
        return ""
    return _code(str(param.default.value if isinstance(param.default, Enum) else param.default))


def _help(param: Any) -> str:
    return " ".join(param.help.split()).replace("|", "\\|")


def _exit_codes(name: str) -> Iterator[str]:
    yield from ("| | |", "|---|---|")
    for code, meaning in EXIT_CODES.items():
        if code != BATCH_ONLY or name == "batch":
            yield f"| {code} | {meaning} |"


def _code(text: str) -> str:
    escaped = text.replace("|", "\\|")
    return f"`{escaped}`"


def _longest(names: list[str]) -> str:
    return max(names, key=len)


def from_root(name: str) -> str:
    """A Markdown file of the repository's root, its links seen from docs/."""
    return (ROOT / name).read_text(encoding="utf-8").replace("](docs/", "](")


def generated() -> dict[str, str]:
    """Markdown by its place in the site."""
    pages = {f"commands/{name}.md": command_page(name) for name in COMMANDS}
    return pages | {page: from_root(name) for page, name in OWN.items()}


def in_site(markdown: str, place: str) -> str:
    """A page at `place` in docs/, its links to files of the root as links to their pages."""
    up = "../" * place.count("/")
    for page, name in OWN.items():
        markdown = markdown.replace(f"](../{up}{name}", f"]({up}{page}")
    return markdown


def on_config(config: MkDocsConfig) -> None:
    """The commands' pages follow the one that is written by hand."""
    (commands,) = (entry["Commands"] for entry in config.nav or [] if "Commands" in entry)
    commands += [{name: f"commands/{name}.md"} for name in COMMANDS]


def on_files(files: Files, config: MkDocsConfig) -> Files:
    from mkdocs.structure.files import File

    for place, text in generated().items():
        files.append(File.generated(config, place, content=text))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Links as they are in the site, and a list of the commands at the end of the page on all of them."""
    markdown = in_site(markdown, page.file.src_uri)
    if page.file.src_uri != "commands.md":
        return markdown
    first_lines = {name: inspect.cleandoc(command.help).splitlines()[0] for name, command in COMMANDS.items()}
    rows = [f"| [{name}](commands/{name}.md) | {line} |" for name, line in first_lines.items()]
    return "\n".join([markdown, "", "## All commands", "", "| | |", "|---|---|", *rows])
