"""Images as frames: folders, TIFF, animations."""
