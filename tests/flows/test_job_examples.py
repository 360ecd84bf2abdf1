"""Which cases explain a job's loss: the planted ones come out on top, resemblances are named."""

import asyncio
import json
import os
import subprocess
import sys
from typing import Any

import pytest

from tests.flows.stack import TINY, Stack, until
from tests.support import Api, chat_line

pytestmark = [pytest.mark.train, pytest.mark.timeout(240)]

PLANTED = {4: "zq9 xx vbnm 77 lkj", 11: "0x1f pqrs ~~ wy", 20: "mmm tt 5 gh#k z!"}
EXAMPLES = """query ($j: ID!, $first: Int, $after: String, $split: DataSplit, $flag: ExampleFlag) {
  job(id: $j) { resultFiles { filename } examples(
    first: $first, after: $after, split: $split, flag: $flag) {
    nodes { split line loss tokens flags duplicateOf sameInOther contradicts question answer case }
    pageInfo { hasNextPage endCursor } totalCount measured cases sampled } } }"""


def training_lines() -> list[str]:
    queues = ("billing", "shipping", "account")
    lines = [
        chat_line(f"ticket {n}: my question is about {queues[n % 3]}", queues[n % 3])
        for n in range(24)
    ]
    for line, nonsense in PLANTED.items():
        lines[line - 1] = chat_line(f"ticket {line}: my question is about billing", nonsense)
    lines.append(lines[0])  # line 25: the same case in other spacing
    lines[-1] = json.dumps(json.loads(lines[0]), separators=(",", ":"))
    lines.append(chat_line("ticket 1: my question is about shipping", "nothing of the kind"))
    return lines


async def test_the_worst_cases_come_first_with_their_lines(owner: Api, stack: Stack) -> None:
    lines = training_lines()
    held_out = [chat_line(f"ticket {n}: about account", "account") for n in (90, 91)] + [lines[2]]
    job = await owner.job_id(
        baseModel=TINY,
        trainingData=await owner.dataset_version("\n".join(lines)),
        validationData=await owner.dataset_version("\n".join(held_out)),
        seed=3,
        method={
            "supervised": {
                "hyperparameters": {
                    "nEpochs": 12,
                    "batchSize": 4,
                    "learningRate": 0.003,
                    "adapter": "FULL",
                    "evalInterval": 100,
                    "checkpointInterval": 100,
                }
            }
        },
    )
    found = await until(owner, job, "SUCCEEDED", "FAILED")
    assert found["status"] == "SUCCEEDED", found["error"]

    async def ask(**wanted: Any) -> dict[str, Any]:
        answer = await owner.execute(EXAMPLES, j=job, **wanted)
        assert [file["filename"] for file in answer["job"]["resultFiles"]] == [
            "metrics.csv",
            "examples.jsonl",
        ]
        page: dict[str, Any] = answer["job"]["examples"]
        return page

    page = await ask(split="TRAINING", first=200)
    assert (page["measured"], page["cases"], page["sampled"]) == (29, 29, False)
    nodes = page["nodes"]
    assert [node["loss"] for node in nodes] == sorted((n["loss"] for n in nodes), reverse=True)
    # Line 26 gives the lie to line 2, and is as hard to learn as nonsense.
    assert {node["line"] for node in nodes[:4]} - {26} >= set(PLANTED)
    worst = next(node for node in nodes if node["line"] in PLANTED)
    assert worst["answer"] == PLANTED[worst["line"]]
    assert worst["case"] == json.loads(lines[worst["line"] - 1])
    assert worst["tokens"] > 5

    def place(nodes: list[dict[str, Any]], *names: str) -> list[tuple[Any, ...]]:
        return sorted(tuple(node[name] for name in ("split", "line", *names)) for node in nodes)

    assert place((await ask(flag="DUPLICATE"))["nodes"], "duplicateOf") == [("TRAINING", 25, 1)]
    assert place((await ask(flag="IN_BOTH"))["nodes"], "sameInOther") == [
        ("TRAINING", 3, 3),
        ("VALIDATION", 3, 3),
    ]
    assert place((await ask(flag="CONTRADICTS"))["nodes"], "contradicts") == [
        ("TRAINING", 2, 26),
        ("TRAINING", 26, 2),
    ]

    every: list[tuple[str, int]] = []
    after = None
    while True:
        page = await ask(first=7, after=after)
        every += [(node["split"], node["line"]) for node in page["nodes"]]
        if not page["pageInfo"]["hasNextPage"]:
            break
        after = page["pageInfo"]["endCursor"]
    assert len(every) == len(set(every)) == page["totalCount"] == 29

    words = ["jobs", "examples", job, "--flag", "duplicate"]
    assert "duplicate of 1" in await asyncio.to_thread(luthier, stack, words)
    printed = json.loads(await asyncio.to_thread(luthier, stack, [*words, "--json"]))
    assert [node["line"] for node in printed["nodes"]] == [25]


def luthier(stack: Stack, words: list[str]) -> str:
    return subprocess.run(
        [sys.executable, "-m", "app.cli.main", *words],
        env={**os.environ, "LUTHIER_URL": stack.url, "LUTHIER_API_KEY": stack.key},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
