"""``deepcheck export``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

__all__ = ["Export"]


@dataclass(frozen=True)
class Export:
    """Write the weights of a trained net alone, in half precision and in small files that travel.

    Every other command takes their folder in the place of a checkpoint. `deepcheck train --resume --out FOLDER` goes on
    training from them, with a new optimiser.
    """

    checkpoint: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="CHECKPOINT")]
    """A checkpoint, as `deepcheck train` leaves it, or the folder where it is."""
    out: Path
    """Folder of the files, weights-1-of-n.safetensors and so on."""
    dtype: Literal["bfloat16", "float16", "float32"] = "bfloat16"
    """Precision of the weights. Running statistics of norms stay in single precision."""
    most: int = 16
    """Largest size of a file in MiB, >= 1."""
    overwrite: tyro.conf.FlagCreatePairsOff[bool] = False
    """Replace weights that are in the folder."""

    def run(self) -> int:
        """Run the command."""
        from deepcheck import checkpoint
        from odeflow.model import checked_count

        most = checked_count("most", self.most, 1) * 2**20
        if checkpoint.result_in(self.out).is_file() and checkpoint.result_in(self.out) != self.out:
            raise ValueError(
                f"out = {str(self.out)!r} holds a training, which would go before the weights: allowed is another folder"
            )
        path = checkpoint.result_in(self.checkpoint)
        _, information = checkpoint.read(path)
        network = checkpoint.load_model(path)
        files = checkpoint.write_shards(
            self.out, network, information, dtype=self.dtype, most=most, overwrite=self.overwrite
        )
        for file in files:
            print(f"{file}  {file.stat().st_size / 2**20:.1f} MiB")
        return 0
