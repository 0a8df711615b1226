"""A user's model -> its structure, on the meta device: no weight is read, copied or changed."""
