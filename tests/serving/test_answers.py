"""What deployed models answer."""

import asyncio
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.serving.talk import answer, ask, question, stream, texts
from tests.serving.world import BASE

pytestmark = pytest.mark.train

MODELS = (BASE, "ft:tiny:one.v1", "ft:tiny:two")
PROMPTS = ("Which wood?", "A", "How long must the spruce dry under the roof? " * 5)


async def test_a_mixed_batch_answers_as_each_model_alone(client: httpx.AsyncClient) -> None:
    wanted = [(model, prompt) for model in MODELS for prompt in PROMPTS]
    alone = [await answer(client, *pair, ignore_eos=True) for pair in wanted]
    assert len(set(alone)) == len(wanted), "models and prompts must differ, or nothing is shown"
    for _ in range(3):  # more requests than rows: some join while others are half done
        together = await asyncio.gather(*(answer(client, *p, ignore_eos=True) for p in wanted))
        assert list(together) == alone


async def test_rows_join_and_leave_at_any_step(client: httpx.AsyncClient) -> None:
    lengths = [3, 40, 11, 25, 7, 60, 18, 2, 33, 50]
    pairs = [(MODELS[at % 3], PROMPTS[at % 2], size) for at, size in enumerate(lengths)]
    alone = [await answer(client, m, p, max_tokens=s, ignore_eos=True) for m, p, s in pairs]

    async def late(at: int, model: str, prompt: str, size: int) -> str:
        await asyncio.sleep(at * 0.007)
        return await answer(client, model, prompt, max_tokens=size, ignore_eos=True)

    together = await asyncio.gather(*(late(at, *pair) for at, pair in enumerate(pairs)))
    assert list(together) == alone


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")  # peft's
async def test_answers_are_those_of_transformers_and_peft(
    client: httpx.AsyncClient, model: Path, adapters: dict[str, str]
) -> None:
    from peft import PeftModel  # noqa: PLC0415 - takes seconds
    from transformers import AutoModelForCausalLM, AutoTokenizer  # noqa: PLC0415

    tokenizer: Any = AutoTokenizer.from_pretrained(model)
    weights: Any = AutoModelForCausalLM.from_pretrained(model)
    for name, prompt in [(name, prompt) for name in MODELS for prompt in PROMPTS]:
        if name in adapters and prompt == PROMPTS[0]:
            weights = AutoModelForCausalLM.from_pretrained(model)
            weights = PeftModel.from_pretrained(weights, adapters[name])
        messages = [{"role": "user", "content": prompt}]
        inputs = tokenizer.apply_chat_template(
            messages, add_generation_prompt=True, return_tensors="pt", return_dict=True
        )
        size = inputs["input_ids"].shape[1]
        output = weights.generate(**inputs, max_new_tokens=24, do_sample=False)[0, size:]
        said = await ask(client, name, prompt)
        text = tokenizer.decode(output, skip_special_tokens=True)
        assert said["choices"][0]["message"]["content"] == text
        assert said["usage"] == {
            "prompt_tokens": size,
            "completion_tokens": len(output),
            "total_tokens": size + len(output),
        }


@pytest.mark.parametrize("model_name", MODELS)
async def test_a_stream_says_what_the_whole_answer_says(
    client: httpx.AsyncClient, model_name: str
) -> None:
    body = question(model_name, n=2, seed=5, temperature=1.3)
    whole = (await client.post("/v1/chat/completions", json=body)).json()
    chunks = await stream(client, {**body, "stream_options": {"include_usage": True}})
    assert texts(chunks) == {c["index"]: c["message"]["content"] for c in whole["choices"]}
    assert chunks[-1]["choices"] == []
    assert chunks[-1]["usage"] == whole["usage"]
    assert all(chunk["usage"] is None for chunk in chunks[:-1])
    assert {chunk["id"] for chunk in chunks} == {chunks[0]["id"]}
    for index, choice in enumerate(whole["choices"]):
        mine = [c["choices"][0] for c in chunks[:-1] if c["choices"][0]["index"] == index]
        assert mine[0]["delta"] == {"role": "assistant", "content": ""}
        assert [c["finish_reason"] for c in mine[:-1]] == [None] * (len(mine) - 1)
        assert mine[-1] == {
            "index": index, "delta": {}, "logprobs": None, "finish_reason": choice["finish_reason"]
        }  # fmt: skip


async def test_no_usage_unless_asked(client: httpx.AsyncClient) -> None:
    chunks = await stream(client, question(BASE))
    assert all("usage" not in chunk for chunk in chunks)
    assert all(len(chunk["choices"]) == 1 for chunk in chunks)


async def test_tokens_arrive_as_they_are_made(client: httpx.AsyncClient) -> None:
    body = question(BASE, max_tokens=300, ignore_eos=True, stream=True)
    loop = asyncio.get_running_loop()
    async with client.stream("POST", "/v1/chat/completions", json=body) as reply:
        times = [loop.time() async for line in reply.aiter_lines() if line]
    assert times[len(times) // 2] - times[0] > 0.25 * (times[-1] - times[0]) > 0


async def test_length(client: httpx.AsyncClient) -> None:
    for field in ("max_tokens", "max_completion_tokens"):
        body = question(BASE, ignore_eos=True)
        del body["max_tokens"]
        reply = (await client.post("/v1/chat/completions", json={**body, field: 7})).json()
        assert reply["choices"][0]["finish_reason"] == "length"
        assert reply["usage"]["completion_tokens"] == 7


async def test_a_stop_string_ends_the_answer_before_it(client: httpx.AsyncClient) -> None:
    full = await answer(client, BASE, ignore_eos=True, max_tokens=40)
    for start, size in ((6, 1), (9, 4), (14, 7)):
        stop = full[start : start + size]
        expected = full[: full.index(stop)]
        settings: dict[str, Any] = {"ignore_eos": True, "max_tokens": 40}
        for given in (stop, ["never this", stop]):
            reply = await ask(client, BASE, stop=given, **settings)
            assert reply["choices"][0]["message"]["content"] == expected
            assert reply["choices"][0]["finish_reason"] == "stop"
            assert reply["usage"]["completion_tokens"] < 40
        chunks = await stream(client, question(BASE, stop=stop, **settings))
        assert texts(chunks)[0] == expected


async def test_the_models_end_token_stops(client: httpx.AsyncClient) -> None:
    """At a high temperature the random model soon draws its end token."""
    replies = [
        await ask(client, BASE, temperature=2, seed=seed, max_tokens=400) for seed in range(4)
    ]
    ended = [r for r in replies if r["choices"][0]["finish_reason"] == "stop"]
    assert ended
    assert all("<|im_end|>" not in r["choices"][0]["message"]["content"] for r in replies)


async def test_a_seed_repeats_and_choices_differ(client: httpx.AsyncClient) -> None:
    settings: dict[str, Any] = {"temperature": 1.5, "seed": 11, "n": 4, "ignore_eos": True}
    once = await ask(client, BASE, **settings)
    again, _ = await asyncio.gather(
        ask(client, BASE, **settings), ask(client, "ft:tiny:two", temperature=1)
    )
    said = [choice["message"]["content"] for choice in once["choices"]]
    assert said == [choice["message"]["content"] for choice in again["choices"]]
    assert [choice["index"] for choice in once["choices"]] == [0, 1, 2, 3]
    assert len(set(said)) == 4
    assert once["usage"]["completion_tokens"] == 4 * 24
    other = await answer(client, BASE, temperature=1.5, seed=12, ignore_eos=True)
    assert other not in said[:1]


async def test_narrow_sampling_is_greedy_and_penalties_bite(client: httpx.AsyncClient) -> None:
    greedy = await answer(client, BASE, ignore_eos=True)
    narrows: list[dict[str, Any]] = [{"top_p": 1e-6}, {"top_k": 1}]
    for narrow in narrows:
        assert greedy == await answer(client, BASE, temperature=1.5, ignore_eos=True, **narrow)
    for penalty in ("frequency_penalty", "presence_penalty"):
        settings: dict[str, Any] = {"ignore_eos": True, "max_tokens": 60, penalty: 2}
        chosen = await answer(client, BASE, **settings)
        assert chosen != await answer(client, BASE, ignore_eos=True, max_tokens=60)


async def test_text_parts_and_every_role(client: httpx.AsyncClient) -> None:
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}}
    messages: list[dict[str, Any]] = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "Which"}]},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "content": "maple", "tool_call_id": "c"},
    ]
    parts = await answer(client, BASE, messages=messages)
    messages[1]["content"] = "Which"
    assert parts == await answer(client, BASE, messages=messages)
    messages[0]["role"] = "developer"
    assert parts == await answer(client, BASE, messages=messages)
