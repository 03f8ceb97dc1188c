"""Training: pairs of images and captions, augmentation, losses, stages."""
