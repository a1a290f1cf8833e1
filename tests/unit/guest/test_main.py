# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest
from vcpu_guest.main import build_parser


@pytest.mark.parametrize("word", ["--lis", "--sys", "--log-l", "--vers", "--che"])
def test_the_beginning_of_an_option_is_none(word: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        build_parser().parse_args([f"{word}=info"])
    assert end.value.code == 2
    assert "unrecognized arguments" in capsys.readouterr().err
