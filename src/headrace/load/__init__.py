"""From verified files to tensors, by the framework's own loading."""
