"""A tiny random model and adapters for it, made on the spot."""

import warnings
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

TEXT = (
    "The luthier carves the scroll, bends the ribs over a hot iron and glues the back. "
    "A violin sounds when the bow makes its strings swing; spruce for the top, maple for the "
    "neck. Was it dry? It was: seven winters under the roof, 1234567890 days. Où? Öl, façade, 木."
)
TEMPLATE = (
    "{% for message in messages %}{% if message['role'] == 'tool' and loop.first %}"
    "{{ raise_exception('a tool cannot speak first') }}{% endif %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def build_model(folder: Path, seed: int = 0) -> Path:
    import torch  # noqa: PLC0415 - these take seconds
    from transformers import (  # noqa: PLC0415
        LlamaConfig,
        LlamaForCausalLM,
        PreTrainedTokenizerFast,
    )

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(
        [TEXT],
        trainers.BpeTrainer(vocab_size=384, special_tokens=special, initial_alphabet=alphabet),
    )
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<|im_end|>", pad_token="<|endoftext|>"
    )
    fast.chat_template = TEMPLATE
    fast.save_pretrained(folder)
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(fast), hidden_size=64, intermediate_size=128, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=512,
        initializer_range=0.3, eos_token_id=fast.eos_token_id, pad_token_id=fast.pad_token_id,
        tie_word_embeddings=False,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


def build_adapter(model: Path, folder: Path, seed: int, *, broken: bool = False) -> Path:
    import torch  # noqa: PLC0415 - these take seconds
    from peft import LoraConfig, get_peft_model  # noqa: PLC0415
    from transformers import AutoModelForCausalLM  # noqa: PLC0415

    torch.manual_seed(seed)
    config = LoraConfig(
        r=4, lora_alpha=16, target_modules="all-linear", init_lora_weights=False,
        task_type="CAUSAL_LM",
    )  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # peft still asks transformers by a deprecated name
        peft = get_peft_model(AutoModelForCausalLM.from_pretrained(model), config)
        if broken:
            with torch.no_grad():
                next(w for n, w in peft.named_parameters() if "lora_B" in n).fill_(float("nan"))
        peft.save_pretrained(folder)
    return folder
