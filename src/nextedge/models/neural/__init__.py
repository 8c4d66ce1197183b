"""Networks trained by gradient descent; they need torch."""
