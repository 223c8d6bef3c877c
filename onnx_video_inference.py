"""Detect objects in a video with an ONNX file: inference_video.py, under a name that it had for such files.

python onnx_video_inference.py --input video.mp4 --weights weights/model.onnx
"""

from utils.cli.script import run_other_script

if __name__ == "__main__":
    run_other_script("inference_video", weights=".onnx", remedy="export.py makes one of a checkpoint")
