"""The commands of ``deepcheck``, one a file: a frozen dataclass whose fields are flags, and which `run` carries out."""
