"""What an epoch is compared by, and where that is written."""
