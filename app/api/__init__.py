"""The HTTP doors: translate, call one service, translate back."""
