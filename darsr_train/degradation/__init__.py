"""The physics: kernels, their moments, blurring and reducing, cameras."""
