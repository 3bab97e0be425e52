"""What made a result: attributes that every result carries; saving and loading."""

from odeflow.provenance.attributes import package_version, provenance, version
from odeflow.provenance.files import SUFFIXES, SaveError, check_target, replacing, write_bytes
from odeflow.provenance.results import load, save

__all__ = [
    "SUFFIXES",
    "SaveError",
    "check_target",
    "load",
    "package_version",
    "provenance",
    "replacing",
    "save",
    "version",
    "write_bytes",
]
