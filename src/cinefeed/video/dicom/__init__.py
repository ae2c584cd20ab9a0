"""DICOM cine (extra `dicom`)."""
