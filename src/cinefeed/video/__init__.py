"""Sources: metadata and frames of video files, one module per family of formats."""
