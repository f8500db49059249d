"""Image files: where they are, how they are decoded, and which of them are copies of each other."""
