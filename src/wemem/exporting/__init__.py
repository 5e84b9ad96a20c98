"""Models as files: checkpoints, ONNX, compact sparse files, and the footprint. Nothing here depends
on a study.
"""
