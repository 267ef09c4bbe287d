import pytest

from adaptiveisp.errors import AdaptiveISPError
from adaptiveisp.utils.optional_imports import import_extra, require_extra


def test_a_missing_library_is_named_with_its_remedy() -> None:
    with pytest.raises(AdaptiveISPError, match=r"no_such_library is not installed.*pip install .adaptiveisp\[report\]"):
        import_extra("no_such_library", "report")
    assert import_extra("json", "report").loads("1") == 1


def test_what_is_installed_is_found_without_importing_it() -> None:
    require_extra("demo", "json", "wave")
    with pytest.raises(
        AdaptiveISPError, match=r"no_such_library is not installed; run: pip install .adaptiveisp\[demo"
    ):
        require_extra("demo", "json", "no_such_library")
