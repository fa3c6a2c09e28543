"""Another service that installs the producer pays for what it uses, and for nothing else."""

from __future__ import annotations

import subprocess
import sys

import pytest

# The whole process, interpreter included: what comes after `import producer` may not be more than this beyond `pass`.
CPU_MILLISECONDS = 60
ROUNDS = 5

CPU = "import time; print(time.process_time_ns())"
MODULES = "import sys; print(' '.join(sorted({name.partition('.')[0] for name in sys.modules})))"


def output_of(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout


def cpu_milliseconds(code: str) -> float:
    """The least of several: whatever else runs on the machine can only add."""
    return min(int(output_of(f"{code}; {CPU}")) for _ in range(ROUNDS)) / 1e6


def test_importing_the_producer_costs_next_to_nothing() -> None:
    assert cpu_milliseconds("import producer") - cpu_milliseconds("pass") <= CPU_MILLISECONDS


@pytest.mark.parametrize(
    ("code", "absent"),
    [
        pytest.param(
            "import producer",
            {
                "sqlalchemy",
                "celery",
                "kombu",
                "redis",
                "pydantic",
                "structlog",
                "rich",
                "jsonschema",
                "tasks",
                "worker",
            },
            id="import producer",
        ),
        pytest.param(
            "from producer import Producer",
            {"celery", "kombu", "pydantic", "httpx", "openai", "structlog", "rich", "jsonschema", "tasks", "worker"},
            id="from producer import Producer",
        ),
        pytest.param(
            "from producer import Request, State, InvalidRequest",
            {"celery", "sqlalchemy", "pydantic", "tasks", "worker"},
            id="what a request is made of",
        ),
    ],
)
def test_an_import_loads_nothing_that_it_does_not_need(code: str, absent: set[str]) -> None:
    assert absent & set(output_of(f"{code}; {MODULES}").split()) == set()


def test_every_public_name_of_the_producer_can_be_imported() -> None:
    code = "import producer; print(all(getattr(producer, name) is not None for name in producer.__all__))"
    assert output_of(code).strip() == "True"


def test_a_name_that_the_producer_does_not_have_is_an_attribute_error() -> None:
    code = "import producer; print(hasattr(producer, 'perform'))"
    assert output_of(code).strip() == "False"
