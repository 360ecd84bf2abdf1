"""The product's verbs, as a user types them."""
