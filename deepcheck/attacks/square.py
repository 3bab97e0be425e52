"""The former place of `deepcheck.attacks.black_box.square`."""

from deepcheck.attacks.black_box.square import Square

__all__ = ["Square"]
