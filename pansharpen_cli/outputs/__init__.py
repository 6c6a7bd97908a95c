"""From pixels to files: products, and pictures of them."""
