from hypothesis import settings

# The same examples in every run: a test that fails can be repeated, and one that passes here passes elsewhere.
# `pytest --hypothesis-profile=search` looks for new ones.
settings.register_profile("fixed", derandomize=True, deadline=None, max_examples=100)
settings.register_profile("search", deadline=None, max_examples=1000)
settings.load_profile("fixed")
