"""Other people's environments (Gymnasium, PettingZoo) behind the batched interface of our own."""
