"""Foreign formats, one small file each."""
