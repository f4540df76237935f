"""Volumes and label maps on disk: reading, DICOM series, and writing that never leaves half a file."""
