"""Detect objects in a video with an ONNX file: alias of inference_video.py, kept for compatibility.

python onnx_inference_video.py --input video.mp4 --weights weights/model.onnx
"""

from utils.cli.script import run_other_script

if __name__ == "__main__":
    run_other_script("inference_video", weights=".onnx", remedy="export.py converts a checkpoint")
