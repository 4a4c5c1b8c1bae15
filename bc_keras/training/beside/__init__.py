"""What a compiled step is given beside its batch, and what it keeps."""
