"""What a wheel has that lies elsewhere in the repository: the flagfiles, the README."""

import re
from pathlib import Path

from hatchling.builders.hooks.plugin.interface import BuildHookInterface
from hatchling.metadata.plugin.interface import MetadataHookInterface

CODE = re.compile(r"(^```.*?^```$|`[^`\n]*`)", re.M | re.S)
# [text](target), ![text](target), [label]: target, src="target" and href="target".
LINK = re.compile(r'(\]\(|^\[[^\]]+\]:\s+|\b(?:src|href)=")(?![a-z]+:|#|/)', re.M)
PICTURE = re.compile(r'(!\[[^\]]*\]\(|\bsrc=")(?![a-z]+:|#|/)')


class Flagfiles(BuildHookInterface):
    """Puts the flagfiles into the package; one in place reads the repository."""

    def initialize(self, version, build_data):
        """Adds them to a wheel."""
        if self.target_name == "wheel" and version != "editable":
            build_data["force_include"]["experiments/flags"] = "coded_jax/flags"


class Readme(MetadataHookInterface):
    """Makes the README the description, for pages that have no files beside it."""

    def update(self, metadata):
        """Sets `readme`."""
        text = Path(self.root, "README.md").read_text()
        metadata["readme"] = {
            "content-type": "text/markdown",
            "text": with_addresses(text, metadata["urls"]["Repository"]),
        }


def with_addresses(text, repository):
    """Returns Markdown whose links and pictures are addresses, not relative paths.

    Args:
      text: Markdown; code in it stays as it is.
      repository: the address that the paths are relative to, on GitHub.
    """
    parts = CODE.split(text)
    for i in range(0, len(parts), 2):
        part = PICTURE.sub(rf"\1{repository}/raw/main/", parts[i])
        parts[i] = LINK.sub(rf"\1{repository}/blob/main/", part)
    return "".join(parts)
