"""Bridges to other libraries, each loaded when it is imported by name: ``from tansaku.bridges import evotorch``."""
