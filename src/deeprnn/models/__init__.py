"""Networks made of the layers."""
