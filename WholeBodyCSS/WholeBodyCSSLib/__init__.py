"""The Slicer room: the only code that may import slicer, qt, ctk or vtk. Of the engine it sees the torch-free core."""
