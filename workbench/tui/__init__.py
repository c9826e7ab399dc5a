"""The workbench on screen: a model that knows no terminal, panes, and the application around them.

`session` is the model: a trace, a position, a filter, a selection. A pane is a function of the
session and a size to lines of styled text; `screen` puts panes together as `layout` says, and `app`
shows that in a terminal. Whatever takes long runs in `worker`, beside the screen.
"""
