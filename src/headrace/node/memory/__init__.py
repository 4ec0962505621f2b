"""What a node knows: asked of the trusted source, believed for a while, remembered."""
