"""Prints docs/cli.md, the reference of the command line, from the commands themselves.

python docs/cli.py > docs/cli.md
"""

import click

from mfbench.cli import cli

HEAD = """# Command line

Written by `python docs/cli.py` from the commands themselves; every command prints its part with `--help`.

Names that do not exist are answered with the nearest one that does. Results go to stdout, everything else to stderr;
`NO_COLOR` and a stdout that is no terminal turn colours off. Ctrl-C ends a command with exit code 130; finished records
are kept. Completion of commands and options in your shell, for Bash (Zsh and Fish: `zsh_source`, `fish_source`):

```sh
eval "$(_MFBENCH_COMPLETE=bash_source mfbench)"
```
"""


def reference() -> str:
    """The page."""
    parts = [HEAD]
    for name, command in sorted(cli.commands.items()):
        context = click.Context(command, info_name=f"mfbench {name}", terminal_width=96, max_content_width=96)
        parts.append(f"## mfbench {name}\n\n```text\n{command.get_help(context).rstrip()}\n```\n")
    return "\n".join(parts)


if __name__ == "__main__":
    print(reference(), end="")
