"""Models as files: checkpoints, ONNX, compact sparse files, and the footprint. Knows no study."""
