"""The suite's assertions explain themselves, as a test module's do."""

import pytest

pytest.register_assert_rewrite("llama_index_suite")
