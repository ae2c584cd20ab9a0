"""The containers that FFmpeg may open: none of them refers to other files."""

# FFmpeg's names of the supported containers, whatever a file is called. Each contains its own frames. Play lists and
# formats that read other files (concat, hls, dash, sdp, rtsp, image2, imf, vobsub, tee, lavfi ...) are excluded.
DEMUXERS = tuple(
    """
    apng asf av1 avi dv flv gif h264 hevc ivf m4v matroska mjpeg mov mpeg mpegts mpegvideo mxf nut obu ogg vc1 vvc webm
    yuv4mpegpipe
    """.split()
)
