"""Segment Anything Med: outline a structure on one slice, and its memory carries the outline through the volume."""

__version__ = "0.1.0"
