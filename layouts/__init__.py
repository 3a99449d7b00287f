"""Where, how large, what shape: layouts for rare objects on the dataset's own images."""
