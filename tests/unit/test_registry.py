"""Registering actions and loading the modules that hold them."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tasks import InvalidAction, Policy, action, load
from tasks import _registry as registry

MODULE = """
from tasks import action

@action("{name}", effect="pure")
def it() -> int:
    return 1
"""


@pytest.fixture(autouse=True)
def _actions_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    load()  # first, or what is imported here for the first time would be missing in every later test
    monkeypatch.setattr(registry, "_actions", {})


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder to import modules from, which are forgotten afterwards."""
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    for name, module in list(sys.modules.items()):
        if (getattr(module, "__file__", None) or "").startswith(str(tmp_path)):
            del sys.modules[name]


def test_a_registered_function_stays_as_it_is() -> None:
    @action("test.it", effect="pure")
    def it(a: int) -> int:
        return a + 1

    assert it(1) == 2


def test_an_action_without_an_effect_class_does_not_register() -> None:
    with pytest.raises(TypeError, match="effect"):
        action("test.it")  # type: ignore[call-arg]  # the point
    assert not registry._actions  # noqa: SLF001  what the test is about


def test_the_policy_is_what_was_declared() -> None:
    @action("test.it", effect="pure", autoretry_for=(OSError,), max_retries=None, retry_jitter=False, timeout=5)
    def it() -> None: ...

    expected = Policy(autoretry_for=(OSError,), max_retries=None, retry_jitter=False, timeout=5)
    assert registry._actions["test.it"].policy == expected  # noqa: SLF001  what the test is about


@pytest.mark.parametrize(("given", "seconds"), [(True, 1.0), (False, 0.0), (2, 2.0), (0.5, 0.5)])
def test_retry_backoff_may_be_a_flag_as_with_celery(given: float | bool, seconds: float) -> None:  # noqa: FBT001
    @action("test.it", effect="pure", retry_backoff=given)
    def it() -> None: ...

    assert registry._actions["test.it"].policy.retry_backoff == seconds  # noqa: SLF001  what the test is about


def test_one_name_for_two_functions_is_refused_with_both_places() -> None:
    @action("test.it", effect="pure")
    def first() -> None: ...

    with pytest.raises(InvalidAction, match=r"test\.it is declared twice: .*first and .*second"):

        @action("test.it", effect="pure")
        def second() -> None: ...


def test_a_module_that_is_loaded_again_registers_again(folder: Path) -> None:
    (folder / "again.py").write_text(MODULE.format(name="test.again"))
    load(["again"])
    del sys.modules["again"]
    assert "test.again" in load(["again"])


def test_one_name_in_two_modules_is_refused(folder: Path) -> None:
    for module in ("one", "two"):
        (folder / f"{module}.py").write_text(MODULE.format(name="test.same"))
    with pytest.raises(InvalidAction, match=re.escape("test.same is declared twice: one.it and two.it")):
        load(["one", "two"])


@pytest.mark.parametrize("module", ["nowhere_at_all", "nowhere_at_all.actions"])
def test_a_module_that_is_not_there_is_named(module: str) -> None:
    with pytest.raises(InvalidAction, match=f"there is no module '{module}' to load actions from; is it installed"):
        load([module])


def test_a_module_missing_in_a_package_that_is_there_is_named(folder: Path) -> None:
    (folder / "package").mkdir()
    (folder / "package" / "__init__.py").touch()
    with pytest.raises(InvalidAction, match=r"there is no module 'package\.actions'"):
        load(["package.actions"])


def test_what_a_module_itself_cannot_import_is_not_taken_for_the_module(folder: Path) -> None:
    (folder / "broken.py").write_text("import nowhere_at_all")
    with pytest.raises(ModuleNotFoundError, match="nowhere_at_all"):
        load(["broken"])


def test_what_was_loaded_cannot_be_changed_from_outside() -> None:
    with pytest.raises(TypeError):
        load()["test.it"] = None  # type: ignore[index]  # the point
