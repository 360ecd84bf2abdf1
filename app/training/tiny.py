"""A random 0.9 million parameter Llama with a tokenizer of its own, for tests only.

It learns the format of its data in seconds and nothing else; a falling loss on it shows that the
machinery works, not that a model got better. `python -m app.training.tiny --to DIR`.
"""

import argparse
from pathlib import Path

VOCABULARY = 640
CONTEXT = 512
PAD, START, END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"

# Without `{% generation %}` markers, like most templates in the wild.
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)

TEXT = [
    "A luthier builds and repairs instruments with strings: violins, guitars, lutes and harps.",
    "The customer writes that the parcel has not arrived, and asks where it is.",
    "Please send the invoice for March again; the amount on the first one was wrong.",
    "I cannot sign in: the password is refused, although I changed it yesterday.",
    "The application closes by itself whenever I open the settings on my telephone.",
    "Thank you for the quick answer, everything works now and you may close the ticket.",
    '{"queue": "billing", "priority": "low"} {"queue": "shipping", "priority": "high"}',
    '{"queue": "technical", "priority": "normal"} {"queue": "account", "priority": "high"}',
    "system user assistant: You sort messages of customers and answer with JSON only.",
    "zero one two three four five six seven eight nine ten, red green blue black white",
    "What is the capital of France? The capital of France is Paris, on the river Seine.",
    "Every step reads a few examples, measures the loss and moves the weights a little.",
    "Naïve façades, über-großes Œuvre, español, Ελληνικά, русский, 日本語, 🎻 and other text.",
]


def build(to: Path, seed: int = 0) -> None:
    """Write model and tokenizer to `to`; the same seed gives the same bytes."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=[PAD, START, END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    raw.train_from_iterator(TEXT, trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=raw,
        pad_token=PAD,
        eos_token=END,
        model_max_length=CONTEXT,
        chat_template=CHAT_TEMPLATE,
    )
    torch.manual_seed(seed)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=VOCABULARY,
            hidden_size=128,
            intermediate_size=384,
            num_hidden_layers=4,
            num_attention_heads=4,
            num_key_value_heads=4,
            max_position_embeddings=CONTEXT,
            tie_word_embeddings=True,
            bos_token_id=None,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )
    to.mkdir(parents=True, exist_ok=True)
    tokenizer.save_pretrained(to)
    model.save_pretrained(to)


def main() -> None:
    parser = argparse.ArgumentParser(description="Write the tiny test model to a folder.")
    parser.add_argument("--to", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    build(arguments.to, arguments.seed)


if __name__ == "__main__":
    main()
