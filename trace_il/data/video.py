"""uint8 frames <-> MP4 bytes, with PyAV."""

import io
from pathlib import Path
from typing import Any

import av
import numpy as np

CODEC = "h264"
PIXEL_FORMAT = "yuv420p"
# x264's analysis of coming frames reads past the edge of small pictures: the same frames gave other bytes now and then.
NO_LOOKAHEAD = {"mbtree": "0", "sc_threshold": "0", "weightp": "0"}


def encode_video(frames: np.ndarray, fps: float, crf: int = 15) -> bytes:
    """MP4 bytes of (T, H, W, 3) uint8 frames; short groups of pictures, no B-frames, so that seeking is cheap.

    Raises:
        ValueError: frames of another type or shape, or with odd sides, which yuv420p cannot hold.
    """
    if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[-1] != 3:
        raise ValueError(f"frames must be uint8 (T, H, W, 3), got {frames.dtype} {frames.shape}")
    if frames.shape[1] % 2 or frames.shape[2] % 2:
        raise ValueError(f"video needs even height and width, got {frames.shape[1]} x {frames.shape[2]}")
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as container:
        stream: Any = container.add_stream(CODEC, rate=round(fps))
        stream.height, stream.width, stream.pix_fmt = frames.shape[1], frames.shape[2], PIXEL_FORMAT
        stream.options = {"crf": str(crf), "g": "10", "bf": "0", "preset": "veryfast", **NO_LOOKAHEAD}
        stream.thread_count = 1
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")))
        container.mux(stream.encode())
    return buffer.getvalue()


def decode_video(path: Path, start: int = 0, count: int | None = None) -> np.ndarray:
    """Frames `start` to `start + count` of a video file as uint8 (T, H, W, 3)."""
    frames: list[np.ndarray] = []
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.thread_count = 1
        rate, unit, first = stream.average_rate, stream.time_base, stream.start_time or 0
        if rate is None or unit is None:
            raise ValueError(f"{path} does not tell its frame rate; re-create the file")
        if start:  # to the last key frame before
            container.seek(first + int(start / rate / unit), stream=stream)
        for frame in container.decode(video=0):
            if frame.pts is None:
                raise ValueError(f"{path} has frames without a time; re-create the file")
            index = round((frame.pts - first) * unit * rate)
            if count is not None and index >= start + count:
                break
            if index >= start:
                frames.append(frame.to_ndarray(format="rgb24"))
    if not frames or (count is not None and len(frames) < count):
        raise ValueError(f"{path} holds {len(frames)} frames from frame {start}, expected {count}; re-create the file")
    return np.stack(frames)
