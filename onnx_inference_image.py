"""Detect objects in images with an ONNX file: alias of inference.py, kept for compatibility.

python onnx_inference_image.py --input images/ --weights weights/model.onnx
"""

from utils.cli.script import run_other_script

if __name__ == "__main__":
    run_other_script("inference", weights=".onnx", remedy="export.py converts a checkpoint")
