"""What a batch of environments looks like: text, pictures, a window."""
