"""The layers: mxnet and numpy alone."""
