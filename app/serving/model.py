"""The weights: one base model, its adapters, one forward pass over a batch that mixes them.

Imports torch: only the model thread imports this module, and calls everything but `render`.
"""

import json
import time
from collections.abc import Iterator, Sequence
from itertools import count
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, DynamicCache

from app.serving.lora import BASE, MixedLora, adapter_settings
from app.serving.protocol import ApiError, Message


class ServedModel:
    def __init__(self, path: str, dtype: str, max_model_len: int | None) -> None:
        folder = Path(path)
        if not (folder / "config.json").is_file():
            raise ValueError(f"{path} is not a model folder: it has no config.json")
        if (folder / "adapter_config.json").exists():
            raise ValueError(f"{path} holds an adapter, not a model")
        safe: dict[str, Any] = {"trust_remote_code": False, "local_files_only": True}
        config = AutoConfig.from_pretrained(path, **safe)
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        self.tokenizer = AutoTokenizer.from_pretrained(path, **safe)
        # Encoding and decoding go to the Rust tokenizer directly: it is safe between threads as
        # long as nobody changes its settings, which the wrapper's calls do.
        self.text = self.tokenizer.backend_tokenizer
        self.text.no_truncation()
        self.text.no_padding()
        self._model = AutoModelForCausalLM.from_pretrained(
            path, dtype=self._dtype(dtype, config), use_safetensors=True, **safe
        )
        self._model.to(self.device).eval()
        self._peft: Any = None
        self._lora = MixedLora()
        self._names = (f"a{number}" for number in count(1))
        text_config = config.get_text_config()
        window = getattr(text_config, "max_position_embeddings", None) or 2048
        self.max_len = min(max_model_len or window, window)
        generation = self._model.generation_config
        self.temperature = generation.temperature
        self.top_p = generation.top_p
        self.top_k = generation.top_k
        ends = generation.eos_token_id
        ends = ends if isinstance(ends, list) else [ends]
        self.ends = {end for end in (*ends, self.tokenizer.eos_token_id) if end is not None}
        self._warm_up()

    def _dtype(self, wanted: str, config: Any) -> Any:
        """`auto` is what the weights were saved in, except that a CPU has no fast float16, and
        some have no fast bfloat16 either."""
        if wanted != "auto":
            return getattr(torch, wanted)
        saved = getattr(config, "dtype", None) or torch.float32
        if self.device != "cpu" or saved == torch.float32:
            return saved
        if saved == torch.float16:
            return torch.float32
        return (
            saved
            if _seconds_of_matmul(saved) < _seconds_of_matmul(torch.float32)
            else (torch.float32)
        )

    def _warm_up(self) -> None:
        """Fails at start, not at the first customer, for a model whose memory is not plain keys
        and values (state-space and hybrid models: this loop cannot join their rows)."""
        cache = DynamicCache()
        with torch.inference_mode():
            self.forward([[0, 0]], [0], cache, [BASE])
            self.forward([[0]], [2], cache, [BASE])
        if any(getattr(layer, "keys", None) is None for layer in cache.layers):
            raise ValueError("this architecture has layers without keys and values: not supported")

    # -- text ------------------------------------------------------------------------------------

    def render(self, messages: Sequence[Message]) -> list[int]:
        """Any thread may call this."""
        rows = []
        for message in messages:
            row = message.model_dump(exclude_none=True)
            row.setdefault("content", "")
            if row["role"] == "developer":
                row["role"] = "system"
            for call in row.get("tool_calls", ()):
                function = call.get("function", {})
                if isinstance(function.get("arguments"), str):
                    try:  # OpenAI sends a string, templates want the object
                        function["arguments"] = json.loads(function["arguments"])
                    except ValueError:
                        raise ApiError(
                            400, "tool call arguments are not JSON", param="messages"
                        ) from None
            rows.append(row)
        if not self.tokenizer.chat_template:
            raise ApiError(400, "this model has no chat template", param="messages")
        try:
            prompt = self.tokenizer.apply_chat_template(
                rows, tokenize=False, add_generation_prompt=True
            )
        except Exception as error:  # a template may raise anything
            raise ApiError(
                400, f"the model's chat template refused the messages: {error}", param="messages"
            ) from error
        return list(self.text.encode(prompt, add_special_tokens=False).ids)

    def decode(self, ids: list[int]) -> str:
        return str(self.text.decode(ids, skip_special_tokens=True))

    # -- adapters --------------------------------------------------------------------------------

    def load_adapter(self, path: str) -> str:
        """Returns the key that rows name it by; the public name may hold dots, which torch's
        module names cannot, and may be reused while the old weights still answer someone."""
        from peft import LoraConfig, PeftModel, set_peft_model_state_dict
        from safetensors.torch import load_file

        config = LoraConfig(**adapter_settings(Path(path)), task_type="CAUSAL_LM")
        config.inference_mode = True
        weights = load_file(Path(path) / "adapter_model.safetensors", device=self.device)
        key = next(self._names)
        try:
            if self._peft is None:
                self._peft = PeftModel(
                    self._model, config, adapter_name=key, autocast_adapter_dtype=False
                )
            else:
                self._peft.add_adapter(key, config, autocast_adapter_dtype=False)
            self._peft.eval()
            missed = set_peft_model_state_dict(self._peft, weights, adapter_name=key)
            if missed.unexpected_keys:
                raise ValueError(f"{missed.unexpected_keys[0]} has no place in this base model")
            self._lora.adopt(self._peft, key)
            with torch.inference_mode():
                self.forward([[0, 0]], [0], DynamicCache(), [key])
        except BaseException:
            self.drop_adapter(key)
            raise
        return key

    def drop_adapter(self, key: str) -> None:
        if self._peft is None or key not in self._peft.peft_config:
            return
        self._lora.forget(key)
        if len(self._peft.peft_config) == 1:
            self._model = self._peft.unload()
            self._peft = None
            self._lora = MixedLora()
        else:
            self._peft.delete_adapter(key)

    # -- numbers ---------------------------------------------------------------------------------

    def forward(
        self,
        ids: Sequence[Sequence[int]],
        starts: Sequence[int],
        cache: Any,
        adapters: Sequence[str],
        pads: Sequence[int] = (),
    ) -> Any:
        """Adds each row's tokens to the cache and returns the float32 logits after the last.

        `starts` are the positions of the first tokens; `pads` how many columns at the left of
        each row are not its own. Without padding no mask is built: attention is faster so.
        """
        tokens = torch.tensor(ids, device=self.device)
        width = tokens.shape[1]
        first = torch.tensor(starts, device=self.device)[:, None]
        inputs: dict[str, Any] = {
            "input_ids": tokens,
            "position_ids": first + torch.arange(width, device=self.device),
            "past_key_values": cache,
            "use_cache": True,
            "logits_to_keep": 1,
        }
        if any(pads):
            columns = torch.arange(cache.get_seq_length() + width, device=self.device)
            blank = torch.tensor(pads, device=self.device)[:, None]
            inputs["attention_mask"] = (columns >= blank).long()
        self._lora.plan(adapters)
        return self._model(**inputs).logits[:, -1].float()


def _seconds_of_matmul(dtype: Any) -> float:
    square = torch.ones(512, 512, dtype=dtype)
    square @ square
    began = time.perf_counter()
    for _ in range(4):
        square @ square
    return time.perf_counter() - began


def _tensors(cache: Any) -> Iterator[Any]:
    """The layers that own keys (a layer sharing another's has none)."""
    return (layer for layer in cache.layers if layer.is_initialized)


def joined(one: Any, two: Any) -> Any:
    """Rows of two caches under each other, the shorter padded at its left."""
    width = max(one.get_seq_length(), two.get_seq_length())
    for ours, theirs in zip(_tensors(one), _tensors(two), strict=True):
        for name in ("keys", "values"):
            pair = [getattr(layer, name) for layer in (ours, theirs)]
            pair = [torch.nn.functional.pad(t, (0, 0, width - t.shape[-2], 0)) for t in pair]
            setattr(ours, name, torch.cat(pair))
    return one


def keep_rows(cache: Any, rows: Sequence[int], blank: int) -> None:
    """Drops the other rows, and the columns at the left that no remaining row uses."""
    for layer in _tensors(cache):
        layer.keys = layer.keys[list(rows), :, blank:]
        layer.values = layer.values[list(rows), :, blank:]
