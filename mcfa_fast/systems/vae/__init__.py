"""What systems of two aligned variational autoencoders share."""
