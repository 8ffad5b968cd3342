"""Reading and writing media: containers, video frames, audio, log-mels, images.

All untrusted media files are opened here, in process or by ffmpeg, with limits on length, size and
time. Code that turns bytes into arrays, or arrays into bytes, belongs here.
"""
