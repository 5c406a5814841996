"""Writes the reference pages from the code: ``python -m dmpd.cli.reference [FOLDER]``. A test compares them.

Settings, messages, limits, metrics and exit codes are described where they are declared, and nowhere else.
"""

import importlib
import pkgutil
import sys
from pathlib import Path
from typing import get_args

import dmpd

from dmpd.cli import dmpctl, dmpd as dmpd_program, reference_pages as pages  # isort: skip
from dmpd.cli.config import CloudConfig
from dmpd.cli.reference_words import cell, docs_below, field_rows, settings_rows
from dmpd.local_registry.settings import LocalRegistrySettings
from dmpd.model import limits
from dmpd.model.messages import Message
from dmpd.model.record import DeviceRecord, Interface
from dmpd.model.requests import ARGS, SESSION_VERBS
from dmpd.runtime import exit_codes, metrics


def reference() -> dict[str, str]:
    """Each page's name and text."""
    return {
        "configuration.md": configuration(),
        "exit-codes.md": exit_codes_page(),
        "messages.md": messages(),
        "metrics.md": metrics_page(),
    }


def configuration() -> str:
    parts = ["# Configuration\n\n", pages.GENERATED, pages.CONFIGURATION]
    for title, schema in (("dmpd.yaml, the cloud", CloudConfig), ("local-registry.yaml, a RAE", LocalRegistrySettings)):
        parts.append(f"## {title}\n\n| setting | accepts | default | meaning |\n|---|---|---|---|\n")
        parts += [
            f"| `{path}` | {accepts} | {value} | {meaning} |\n"
            for path, accepts, value, meaning in settings_rows(schema)
        ]
        parts.append("\n")
    return "".join(parts).rstrip("\n") + "\n"


def messages() -> str:
    parts = ["# Messages\n\n", pages.GENERATED, pages.MESSAGES]
    common = {"v", "rae", "session", "at"}
    for kind in get_args(Message):
        parts.append(f"### `{kind.__struct_config__.tag}`\n\n{cell(kind.__doc__ or '')}\n\n")
        parts.append("| field | accepts | default |\n|---|---|---|\n")
        parts += [
            f"| `{name}` | {accepts} | {value} |\n" for name, accepts, value in field_rows(kind) if name not in common
        ]
        parts.append("\n")
    for title, struct in (("The record, and what a change may `set`", DeviceRecord), ("An interface", Interface)):
        parts.append(f"### {title}\n\n{cell(struct.__doc__ or '')}\n\n| field | accepts | default |\n|---|---|---|\n")
        parts += [f"| `{name}` | {accepts} | {value} |\n" for name, accepts, value in field_rows(struct)]
        parts.append("\n")
    parts.append(pages.VERBS)
    for verb, args in ARGS.items():
        whom = "a device session" if verb in SESSION_VERBS else "the RAE"
        fields = ", ".join(f"`{name}` {accepts} ({value})" for name, accepts, value in field_rows(args))
        parts.append(f"| `{verb}` | {whom} | {fields or 'none'} |\n")
    parts.append("\n")
    parts.append("## Limits\n\n| limit | value | |\n|---|---|---|\n")
    meanings = docs_below(limits)
    parts += [
        f"| `{name}` | {value} | {meanings.get(name, '')} |\n" for name, value in vars(limits).items() if name.isupper()
    ]
    return "".join([*parts, "\n", pages.REFUSALS]).rstrip("\n") + "\n"


def metrics_page() -> str:
    for module in pkgutil.walk_packages(dmpd.__path__, "dmpd."):
        if module.name.rsplit(".", 1)[-1] == "metrics":
            importlib.import_module(module.name)
    parts = ["# Metrics\n\n", pages.GENERATED, "On `/metrics` of each daemon.\n\n"]
    parts.append("| metric | kind | unit | meaning |\n|---|---|---|---|\n")
    for one in metrics.declared():
        if one.name.startswith("dmpd_test_"):
            continue
        labels = f"{{{', '.join(one.labels)}}}" if one.labels else ""
        parts.append(f"| `{one.name}{labels}` | {one.kind} | {one.unit} | {cell(one.meaning)} |\n")
    return "".join(parts)


def exit_codes_page() -> str:
    meanings = docs_below(exit_codes)
    parts = ["# Exit codes\n\n", pages.GENERATED, pages.EXIT_CODES]
    parts += [
        f"| {value} | {name} | {meanings[name]} |\n" for name, value in vars(exit_codes).items() if name.isupper()
    ]
    for program, commands in (("dmpd", dmpd_program.COMMANDS), ("dmpctl", dmpctl.COMMANDS)):
        parts.append(f"\n## {program}\n\n| command | exit codes |\n|---|---|\n")
        for name, module in commands.items():
            doc = importlib.import_module(module).__doc__ or ""
            parts.append(f"| `{program} {name}` | {cell(doc.partition('Exit codes:')[2])} |\n")
    return "".join(parts)


def main(folder: Path) -> None:
    for name, text in reference().items():
        (folder / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "docs"))
