"""What an ONNX graph tells about its model: tree ensembles, a linear last layer, and which inputs feed which
columns."""
