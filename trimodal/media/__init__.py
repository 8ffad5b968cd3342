"""Reading and writing media: containers, video frames, audio, log-mels, images.

All files from strangers are opened here, in process or by ffmpeg, with limits on length, size and
time. What comes in turns bytes into arrays or arrays into bytes.
"""
