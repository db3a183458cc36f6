"""The physics: blur kernels, their moments, blurring and reducing, in-camera processing."""
