"""Networks in torch that several components share."""
