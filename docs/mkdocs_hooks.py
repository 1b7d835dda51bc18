"""A hook of the documentation site: pages may link to files of the repository outside docs/, as they do on a forge."""

import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
LINK = re.compile(r"\]\((?:\.\./)+((?:examples|findings)/[^)#]+)\)")


def on_files(files: Files, config: Any) -> Files:
    """Add every file that a page links to."""
    pages = [file for file in files.documentation_pages() if file.abs_src_path]
    linked = {name for page in pages for name in LINK.findall(page.content_string)}
    for name in sorted(linked):
        files.append(File.generated(config, f"files/{name}", abs_src_path=str(ROOT / name)))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Point those links to the added files."""
    up = "../" * page.file.src_uri.count("/")
    return LINK.sub(rf"]({up}files/\1)", markdown)
