import json
import math

import pytest

from trocar import console
from trocar.errors import UserError, UserErrors


def test_json_says_null_where_a_number_is_undefined(capsys: pytest.CaptureFixture[str]) -> None:
    console.print_json({"dice": math.nan, "rows": [{"a": math.inf}, (1, 2.5)], "name": "ü"})
    assert json.loads(capsys.readouterr().out) == {"dice": None, "rows": [{"a": None}, [1, 2.5]], "name": "ü"}


def test_every_error_has_its_own_form(capsys: pytest.CaptureFixture[str]) -> None:
    errors = UserErrors([UserError("one", where="here", mend="so"), UserError("two")])
    console.print_error(errors, as_json=False)
    assert capsys.readouterr().err == "error: one\n  where: here\n  mend:  so\nerror: two\n"


def test_errors_survive_pickling_between_processes() -> None:
    import pickle

    single = pickle.loads(pickle.dumps(UserError("what", where="where", mend="mend")))
    several = pickle.loads(pickle.dumps(UserErrors([single, UserError("other")])))
    assert str(single) == "what\n  where: where\n  mend:  mend"
    assert [error.what for error in several.errors] == ["what", "other"]


def test_progress_of_a_second_fold_begins_anew() -> None:
    with console.Bars() as watcher:
        for _ in range(2):
            for done in range(1, 4):
                watcher.preparing("training frames", done, 3)
        assert watcher._bar is not None
        assert len(watcher._bar.tasks) == 2
