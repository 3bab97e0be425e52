"""Commands to test, and what they leave."""

from pathlib import Path

from deepcheck import cli

TRAIN = "train --dataset digits --model linear --device cpu"


def status_of(arguments: str) -> int:
    try:
        return cli.main(arguments.split())
    except SystemExit as end:
        return int(end.code or 0)


def files() -> set[str]:
    return {path.name for path in Path().iterdir()}
