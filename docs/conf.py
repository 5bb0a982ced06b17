"""The site: `nox -s docs` builds it offline, warnings are errors."""

project = "firsttoken"
author = "The firsttoken developers"
html_title = "firsttoken"
extensions = ["myst_parser", "sphinx_copybutton"]
myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 4
exclude_patterns = ["_build"]
# Files outside docs/ that pages point at are links of the repository, not pages of the site.
# `wrong` is our own name for a file with mistakes in it.
suppress_warnings = ["myst.xref_missing", "misc.highlighting_failure"]
html_theme = "furo"
html_copy_source = False
html_show_sphinx = False
html_show_copyright = False
templates_path: list[str] = []
highlight_language = "none"
