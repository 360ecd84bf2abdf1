"""Base models that Fireworks is known to tune. Its prices go by size: to 16 billion parameters one,
to 80 billion another."""

from datetime import date

from app.providers.base import Offer, Price

PUBLIC = "accounts/fireworks"
_READ = date(2026, 11, 21)
_FROM = "an undated copy of Fireworks' pricing page, read on that day"

OFFERS = (
    Offer(
        f"{PUBLIC}/models/llama-v3p1-8b-instruct",
        ("supervised", "dpo"),
        "Llama 3.1 with 8 billion parameters.",
        max_sequence_length=131_072,
        parameter_count=8_030_261_248,
        license="llama3.1",
        price=Price(0.5, _READ, _FROM),
    ),
    Offer(
        f"{PUBLIC}/models/qwen2p5-7b-instruct",
        ("supervised", "dpo"),
        "Qwen 2.5 with 7 billion parameters.",
        max_sequence_length=32_768,
        parameter_count=7_615_616_512,
        license="apache-2.0",
        price=Price(0.5, _READ, _FROM),
    ),
    Offer(
        f"{PUBLIC}/models/llama-v3p1-70b-instruct",
        ("supervised", "dpo"),
        "Llama 3.1 with 70 billion parameters.",
        max_sequence_length=131_072,
        parameter_count=70_553_706_496,
        license="llama3.1",
        price=Price(3.0, _READ, _FROM),
    ),
)
