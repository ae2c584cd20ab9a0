"""Arrays as videos: NumPy, HDF5, NIfTI, and arrays in memory."""
