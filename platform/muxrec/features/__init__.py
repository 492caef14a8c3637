"""From catalogue rows to arrays, the same in training and in the server. Torch-free."""
