"""Text that a model, or a user, may say, and that must stay text wherever it is shown."""

from __future__ import annotations

# What would be a script, an image that runs one, the end of whatever it stands in, a formula, another direction, a NUL.
HOSTILE = (
    "<scr",
    "ipt>window.hacked=1</scr",
    "ipt>",
    "<img src=x onerror=window.hacked=1>",
    "</table></tape-list><svg onload=window.hacked=1>",
    '"\' onmouseover=window.hacked=1 x="',
    "{{ 7*7 }}{% raw %}",
    "=HYPERLINK(0)",
    "\u202egnp.exe",
    "\x00\x1b[31m",
    "&lt;b&gt;",
)
HOSTILE_NAME = '<script>window.hacked=1</script>"><img src=x onerror=window.hacked=1>'
