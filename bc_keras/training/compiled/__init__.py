"""What a compile said, and how outputs are read by it."""
