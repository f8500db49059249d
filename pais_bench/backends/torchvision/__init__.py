"""Networks built from torchvision."""
