"""Sphinx configuration. The build needs no network; formulas are drawn by MathJax in the reader's
browser, so only reading them does."""

from importlib.metadata import version as version_of

project = "fedmer"
author = "The fedmer authors"
copyright = "The fedmer authors"
version = release = version_of("fedmer")

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.mathjax",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
]
exclude_patterns = ["_build"]
myst_enable_extensions = ["colon_fence", "dollarmath"]
myst_heading_anchors = 3

highlight_language = "none"
add_module_names = False
autodoc_inherit_docstrings = False
autodoc_member_order = "bysource"
autodoc_default_options = {"members": True, "show-inheritance": True}
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
python_maximum_signature_line_length = 88
napoleon_google_docstring = True
napoleon_numpy_docstring = False

html_theme = "furo"
html_title = "fedmer"
html_static_path = ["_static"]
html_copy_source = False
pygments_style = "default"
