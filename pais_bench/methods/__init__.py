"""Methods, one file each: what a teacher's detections are worth. base.py has the hooks and their defaults."""
