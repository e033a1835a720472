"""What ships with the book: densities, classifiers, their architectures and model cards."""
