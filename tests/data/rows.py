"""Images with their labels as bytes, to compare parts of data sets."""


def rows(*splits):
    """Returns image and label of every example, as a list of bytes."""
    return [
        image.tobytes() + bytes([label])
        for split in splits
        for image, label in zip(split.images, split.labels, strict=True)
    ]
