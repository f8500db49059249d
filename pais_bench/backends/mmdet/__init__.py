"""Networks built from mmdetection 3.x, upstream or the maintained fork onedl-mmdetection: the same module names."""
