"""Detect objects in a video: a file, a camera, a stream, or a folder of frames.

python inference_video.py --weights outputs/training/smoke_training/best_model.pth --input video.mp4
"""

from models.errors import ModelError
from utils.options import VideoOptions
from utils.script import run_script


def main(options: VideoOptions) -> None:
    """Write the video with what the detector finds in each frame."""
    from torch_utils.predict import load_detector
    from utils.logs import setup_logging
    from utils.video_inference import use_on_video, video_of

    setup_logging()
    video = video_of(options)
    detector = load_detector(
        options.weights, options.model, device=options.device, imgsz=options.imgsz, square=options.square_img,
        cuda_graphs=options.cuda_graphs,
    )  # fmt: skip
    use_on_video(detector, video, options)


if __name__ == "__main__":
    run_script(main, VideoOptions, "Detect objects in a video.", user_errors=(ModelError,))
