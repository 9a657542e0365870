"""Places of a run: folders and devices, none of which changes its numbers."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

from coded_jax.checks import require


class Places(NamedTuple):
    """Folders and devices of a run, which may be resumed with others.

    Attributes:
      workdir: folder of the run.
      data_dir: TFDS folder; see `data.load`.
      devices: how many are used; all if None.
      mesh: devices along piece x data; see `make_mesh`.
      base_dir: where the base model is trained, or taken from if it has been: runs with
        the same base model share it. The workdir if None.
    """

    workdir: str | os.PathLike
    data_dir: str | None = None
    devices: int | None = None
    mesh: tuple[int, int] | None = None
    base_dir: str | os.PathLike | None = None

    def base_folder(self) -> Path | None:
        """Returns the absolute path of `base_dir`; None without one.

        Raises:
          ValueError: it is the workdir.
        """
        if self.base_dir is None:
            return None
        folder = absolute(self.base_dir, "base_dir")
        differs = folder != absolute(self.workdir)
        accepted = "another folder than the workdir, or none,"
        require("base_dir", os.fspath(self.base_dir), differs, accepted)
        return folder

    def to_flags(self) -> dict[str, str]:
        """Returns `{flag name: text}` of what is not None, without the workdir."""
        folders = {"data_dir": self.data_dir, "base_dir": self.base_dir}
        flags = {
            name: str(absolute(path, name))
            for name, path in folders.items()
            if path is not None
        }
        if self.devices is not None:
            flags["devices"] = str(self.devices)
        if self.mesh is not None:
            flags["mesh"] = f"{self.mesh[0]}x{self.mesh[1]}"
        return flags


PLACES = Places._fields
"""Names of the flags."""


def absolute(path: str | os.PathLike, name: str = "workdir") -> Path:
    """Returns the absolute path of a folder.

    Args:
      path: relative to the current folder, or with `~`.
      name: of the argument that it was given as, for errors.

    Raises:
      ValueError: it is no path, or the empty string, which would be the current folder.
    """
    fits = isinstance(path, str | os.PathLike) and bool(os.fspath(path))
    require(name, path, fits, "the path of a folder")
    return Path(path).expanduser().absolute()
