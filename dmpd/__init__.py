"""dmpd keeps one true, live picture of every device on every RAE of a test lab, and carries commands back.

The rooms, from the top: ``cli``, the programs (``local_registry``, ``bridge``, ``cloud_registry``, ``lab``),
``stream``, ``runtime``, ``model``. Imports point down only; import-linter holds this.
"""

__version__ = "0.1.0"
