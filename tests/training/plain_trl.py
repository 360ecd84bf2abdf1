"""The same training with TRL alone, as its documentation shows it: `plain_trl SETTINGS.json`.

TRL renders the template, tokenises and masks by itself. Prints the CPU seconds between the first
step's beginning and the last one's end, as JSON. It shares no line with `app.training`.
"""

import json
import sys
import time
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from peft import LoraConfig
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
from trl import SFTConfig, SFTTrainer


class Stopwatch(TrainerCallback):  # type: ignore[misc]  # the library is untyped here
    """CPU time of this process while it trains."""

    seconds = 0.0

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        self.seconds = -time.process_time()

    def on_train_end(self, *_: Any, **__: Any) -> None:
        self.seconds += time.process_time()


def main(settings: dict[str, Any]) -> None:
    torch.set_num_threads(1)
    rows = [
        json.loads(line)["messages"] for line in Path(settings["data"]).read_text().splitlines()
    ]
    model = AutoModelForCausalLM.from_pretrained(
        settings["base"], dtype=getattr(torch, settings["dtype"])
    )
    stopwatch = Stopwatch()
    trainer = SFTTrainer(
        model=model,
        args=SFTConfig(
            output_dir=settings["to"],
            num_train_epochs=settings["epochs"],
            per_device_train_batch_size=settings["batch_size"],
            learning_rate=settings["learning_rate"],
            warmup_steps=0,
            lr_scheduler_type="linear",
            max_length=1024,
            completion_only_loss=True,
            gradient_checkpointing=False,
            bf16=False,
            use_cpu=True,
            seed=settings["seed"],
            data_seed=settings["seed"],
            logging_steps=1,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
        ),
        train_dataset=Dataset.from_list(
            [{"prompt": messages[:-1], "completion": messages[-1:]} for messages in rows]
        ),
        processing_class=AutoTokenizer.from_pretrained(settings["base"]),
        peft_config=LoraConfig(
            task_type="CAUSAL_LM",
            r=settings["rank"],
            lora_alpha=2 * settings["rank"],
            lora_dropout=0.0,
            target_modules="all-linear",
        ),
        callbacks=[stopwatch],
    )
    trainer.train()
    trainer.model.save_pretrained(settings["to"])
    steps = trainer.state.global_step
    print(json.dumps({"cpu_seconds": stopwatch.seconds, "steps": steps}))  # noqa: T201


if __name__ == "__main__":
    main(json.loads(Path(sys.argv[1]).read_text()))
