"""What all experiments share: the images, the training loop, the report."""
