"""What each update of each layer was good for, as figures, pictures, tables and words."""

from zenkai_core.diagnostics.reading import Finding, read
from zenkai_core.diagnostics.recorder import Recorder

__all__ = ["Finding", "Recorder", "read"]
