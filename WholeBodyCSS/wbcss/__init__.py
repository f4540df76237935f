"""Whole-body continual segmentation engine. Imports neither slicer, qt, vtk nor, at top level, torch."""

__version__ = "0.1.0"
